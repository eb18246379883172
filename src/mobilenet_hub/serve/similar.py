"""POST /similar: the nearest photos of a collection that `embed` has written."""

from dataclasses import asdict
from pathlib import Path

from mobilenet_hub.inference.engine import Precision
from mobilenet_hub.search.similar import Searcher
from mobilenet_hub.serve.batcher import Work
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer
from mobilenet_hub.serve.own import MOST_NEIGHBOURS, bad_pictures, with_gaps
from mobilenet_hub.serve.served import FEATURES, Options, Served
from mobilenet_hub.serve.state import Call, whole_number

_DEFAULT_K = 10


class Collection:
    """A collection of photos, and the module that its vectors were made with."""

    def __init__(self, features: str | Path, threads: int | None = None):
        """Open what `embed` wrote.

        Args:
            features: its folder.
            threads: to search with.

        Raises:
            InputError, CorruptFileError: as `Searcher` and its `embedder` do.
        """
        from mobilenet_hub.store import resolve

        self._searcher = Searcher(features, threads=threads)
        embedder = self._searcher.embedder  # made as the collection was, or refused
        precision: Precision = "f32" if embedder.precision == "f32" else "bf16"
        options = Options(precision, embedder.image_size, embedder.fit, threads, any_size=True)
        folder = resolve(self._searcher.features.made_with["module"])
        self._served = Served("similar", "1", folder, options)
        self._served.engine((FEATURES,)).run(self._served.blank(1))

    async def __call__(self, call: Call) -> Answer:
        """Answer POST /similar?k=10."""
        k = whole_number(call.query("k").get("k", str(_DEFAULT_K)), "k", MOST_NEIGHBOURS)
        pictures = await call.pictures()
        call.images = len(pictures)
        work = Work(self._served, (FEATURES,))
        await call.state.pictures(work, [data for _, data in pictures])
        failures = work.failures()
        matches = []
        if len(failures) < len(pictures):
            found = await call.state.in_thread(lambda: self._searcher.nearest(work.output(FEATURES), k))
            matches = [[asdict(match) for match in row] for row in found]
        if failures:
            names = [name for name, _ in pictures]
            raise Refusal(
                400, bad_pictures(failures, names), more=with_gaps(failures, len(pictures), "matches", matches)
            )
        return json_answer({"matches": matches})
