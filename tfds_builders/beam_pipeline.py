"""The work on the shards as Apache Beam pipelines, for Dataflow, Flink and Spark: extra `beam`.

The DoFn calls the two functions that the process pool calls, `serialize_shard` and `write_shard`, in one pipeline each,
and what they leave in the work folder has the same bytes; vocabulary and merge stay with the process that started
them. So EHR tables and the folder of datasets must lie on a file system that all workers mount under one path, and the
workers need this package.

TFDS's own BeamBasedBuilder is not used: its writer shuffles examples by a hash of their keys and cuts its own files
from them, one Python call per example, its features are in an order that changes from process to process, and it needs
TensorFlow for its examples. Its bytes could not be those of the pool.

    medbert prepare EHR NAME --beam runner=FlinkRunner flink_master=HOST:8081
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

LOCAL_LIMIT = 256 * 2**20
"""Bytes of EHR tables above which the runners that are for tests are refused."""

_LOCAL_RUNNERS = ("directrunner", "bundlebaseddirectrunner", "switchingdirectrunner", "fnapirunner", "prismrunner",
                  "interactiverunner")  # fmt: skip


class EachShard(beam.DoFn):
    """Calls a function with the number of a shard and hands on what it returns."""

    def __init__(self, function: Callable[[int], int]):
        self._function = function

    def process(self, shard: int):
        """Yield what the function returns."""
        yield self._function(shard)


def read_options(options: Sequence[str], *, ehr_bytes: int) -> PipelineOptions:
    """Return Beam's options from theirs without dashes, as "runner=FlinkRunner".

    Raises ValueError for options that Beam does not have, which it would drop without a word and run here, and for a
    runner that works in one process and EHR tables of `ehr_bytes`, too many for it.
    """
    pipeline_options = PipelineOptions([f"--{option}" for option in options])
    known = set(PipelineOptions([]).get_all_options())
    given = set(pipeline_options.get_all_options(retain_unknown_options=True))
    no_names = [repr(option) for option in options if option[:1] in ("", "-", "=")]
    if unknown := sorted(given - known) + no_names:
        near = sorted({name for option in unknown for name in get_close_matches(option, known, n=1)})
        meant = f"; perhaps {', '.join(near)} is meant" if near else ""
        raise ValueError(
            f"options of a pipeline must be Beam's: got {', '.join(unknown)}; give them without dashes, as"
            f" runner=FlinkRunner{meant}"
        )
    runner = pipeline_options.view_as(StandardOptions).runner or "DirectRunner"
    if runner.rpartition(".")[2].lower() in _LOCAL_RUNNERS and ehr_bytes > LOCAL_LIMIT:
        raise ValueError(
            f"Beam's {runner} is for tests and takes at most {LOCAL_LIMIT / 2**30:g} GB of EHR tables:"
            f" got {ehr_bytes / 2**30:.2g} GB; on one machine leave the options for Beam out (it is faster), on a"
            " cluster name runner=DataflowRunner, FlinkRunner or SparkRunner"
        )
    return pipeline_options


def in_beam(function: Callable[[int], int], shards: Sequence[int], *, options: PipelineOptions) -> list[int]:
    """Call `function`, which must be picklable, for each shard in a pipeline; return the shards when all are done."""
    if not shards:
        return []
    with beam.Pipeline(options=options) as pipeline:
        # Without the reshuffle all shards would be one bundle, on one worker.
        numbers = pipeline | "Shards" >> beam.Create(list(shards)) | "Spread" >> beam.Reshuffle()
        numbers | "Work" >> beam.ParDo(EachShard(function))
    return list(shards)
