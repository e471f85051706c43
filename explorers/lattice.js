// The bfloat16 lattice, as lib/lattice.py has it, bit for bit: patterns are integers 0 to 65,535.

const lattice = (() => {
  const INFINITY = 0x7f80, QUIET_NAN = 0x7fc0;
  const float = new Float32Array(1), word = new Uint32Array(float.buffer);

  const exponent = (u) => (u >> 7) & 0xff;
  const mantissa = (u) => u & 0x7f;
  const value = (u) => { word[0] = u * 0x10000; return float[0]; };
  const ulp = (u) => (exponent(u) === 255 ? NaN : 2 ** (Math.max(exponent(u), 1) - 134));
  const ordinal = (u) => (u < 0x8000 ? u : 0x8000 - u);
  const fromOrdinal = (o) => (o < 0 ? 0x8000 - o : o);

  function neighbour(u, step) {
    const place = ordinal(u);
    if (Math.abs(place) > INFINITY) return u; // NaNs have no place
    if (place + step === 0) return u & 0x8000; // zero keeps the sign it came from
    return fromOrdinal(Math.min(Math.max(place + step, -INFINITY), INFINITY));
  }

  // float32 (a number that is one) to the nearest pattern, ties to the even mantissa
  function roundNearest(x) {
    if (Number.isNaN(x)) return QUIET_NAN;
    float[0] = x;
    return (word[0] + 0x7fff + ((word[0] >>> 16) & 1)) >>> 16;
  }

  // the same with 16 random bits in place of a half
  function roundStochastic(x, random) {
    if (Number.isNaN(x)) return QUIET_NAN;
    float[0] = x;
    return Math.floor((word[0] + random) / 0x10000);
  }

  // any number: to float32 first, then to the lattice, as an update is stored
  const nearest = (x) => roundNearest(Math.fround(x));
  // pattern u moved by an update that is added in float32
  const moved = (u, update) => Math.fround(value(u) + Math.fround(update));

  return { INFINITY, exponent, mantissa, value, ulp, ordinal, fromOrdinal, neighbour, roundNearest,
    roundStochastic, nearest, moved };
})();
