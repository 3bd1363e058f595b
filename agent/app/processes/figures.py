"""The figures of several processes as those of one: what is counted is added up. Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

import attrs
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_BORN: Final = "_created"
"""How the samples end that say when a counter began; the first of them counts."""


@attrs.frozen(eq=False)
class _Merged(Collector):
    """What is shown of several."""

    metrics: list[Metric]

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from self.metrics


def add_up(texts: Iterable[str]) -> str:
    """The sum of several processes' figures, in Prometheus's text format.

    A gauge is a number of something in a process (calls, records), or 0 in all but one: it is added up, too.
    """
    found: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = sums.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                if sample.name.endswith(_BORN):
                    known[key] = min(known.get(key, sample.value), sample.value)
                else:
                    known[key] = known.get(key, 0.0) + sample.value
    for name, metric in found.items():
        for (sample_name, labels), value in sums[name].items():
            metric.add_sample(sample_name, dict(labels), value)
    return generate_latest(_Merged(list(found.values()))).decode()


def without_gauges(text: str) -> str:
    """What of a process's figures still counts when it is gone."""
    kept = [family for family in text_string_to_metric_families(text) if family.type != "gauge"]
    return generate_latest(_Merged(kept)).decode()
