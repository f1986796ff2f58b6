"""Writes results.parquet beside a run folder's results.csv: `pip install pyarrow`, then `to_parquet.py RUN_DIR ..`.

Arrow has no C++ package in Debian 12, so the program itself writes CSV only. Numbers are float64 and int64, empty cells
null, flags booleans; all else is text.
"""
import argparse
import os
import pathlib
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

NUMBERS = ("value", "baseline_value", "delta", "stderr", "ci_low", "ci_high", "ci_level", "p_raw", "p_adj", "control_gap",
           "control_ci_low", "control_ci_high", "mde80", "seconds", "forwards_equiv")
COUNTS = ("n_items", "n_clusters", "n_paired", "n_comparisons", "control_rank", "control_n")
FLAGS = ("higher_is_better", "collapsed")


def convert(folder: pathlib.Path) -> pathlib.Path:
    source, target = folder / "results.csv", folder / "results.parquet"
    with open(source, encoding="utf-8") as file:
        names = file.readline().rstrip("\n").split(",")
    types = {name: pa.float64() if name in NUMBERS else pa.int64() if name in COUNTS else
             pa.bool_() if name in FLAGS else pa.string() for name in names}
    options = pa.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=False)
    table = pa.csv.read_csv(source, convert_options=options)
    part = target.with_suffix(".parquet.part")
    pa.parquet.write_table(table, part)
    os.replace(part, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN_DIR")
    for run in parser.parse_args().runs:
        try:
            print(convert(run))
        except (OSError, pa.ArrowException) as error:
            sys.exit(f"to_parquet: {error}")


if __name__ == "__main__":
    main()
