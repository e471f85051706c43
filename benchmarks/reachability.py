"""Reachability of 151,643 tokens: the peer's way (encode what was decoded) beside ours (exact).

The usual test decodes each id, encodes the text, and calls the token unreachable if other ids come
out. It is quick and wrong for pieces of characters. Ours also searches their completions. One
process, one core, processor time; checks that both agree wherever a token's own text decides.
Then what merging makes of every token alone, by the readable definition and compiled.

    python -m benchmarks.reachability
"""

import os
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

from lib.extraction import merging, reachability, vocabulary
from lib.extraction.reachability import Reach

ROUNDS = 3


def main() -> None:
    """Time both, compare, print."""
    known = vocabulary.open("qwen3")
    library = merging.as_tokenizer(known)
    texts = [known.shown(id) for id in range(len(known.tokens))]

    start = time.process_time()
    encodings = library.encode_batch(texts, add_special_tokens=False)
    failed = {id for id, found in enumerate(encodings) if found.ids != [id]}
    round_trip = time.process_time() - start

    start = time.process_time()
    records = reachability.analyse(known)
    exact = time.process_time() - start

    alone: dict[str, list[float]] = {"definition": [], "compiled": []}
    for _ in range(ROUNDS):  # in turn
        start = time.process_time()
        unchanged = frozenset(t for t in known.ids if merging.merge(t, known) == [t])
        alone["definition"].append(time.process_time() - start)
        start = time.process_time()
        assert merging.self_encoding(known) == unchanged
        alone["compiled"].append(time.process_time() - start)

    dead = {r.id for r in records if r.reach.dead and r.reach is not Reach.PHANTOM}
    alive_fragments = {r.id for r in records if r.reach is Reach.COMPLETED}
    assert dead <= failed, "a token that no text gives must fail the round trip"
    assert failed - dead == alive_fragments, "the two may differ in completed fragments only"
    print(f"round trip with the tokenizers library: {len(failed):,} fail, {round_trip:.1f} s")
    print(f"exact, every completion searched:       {len(dead):,} dead, {exact:.1f} s")
    print(f"false alarms of the round trip:         {len(alive_fragments):,}")
    print(f"ratio of times {exact / round_trip:.1f}; {len(records):,} ids, target 20 s")
    slow, fast = (min(seconds) for seconds in alone.values())
    print(f"merging each token alone: {slow:.2f} s, compiled {fast:.2f} s; ratio {slow / fast:.1f}")


if __name__ == "__main__":
    main()
