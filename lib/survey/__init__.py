"""Surveys of a matrix: census, clusters, geometry, neighbours, graphs."""
