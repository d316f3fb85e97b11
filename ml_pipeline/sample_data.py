"""Writes the tables of a sample shop, and beside them, never among them, the truth that they were drawn from.

`python -m ml_pipeline.sample_data --into DIR` makes the seven tables as CSV in DIR and the truth in DIR_truth. The model
is in `sample_model`, the flaws in `sample_flaws`, the text in `sample_rows`. The same seed and sizes give the same bytes.
Customers are made in blocks of `SampleParameters.customers_per_block`, so memory does not grow with their number.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ml_pipeline.command import add_progress_argument, open_progress, run_command
from ml_pipeline.errors import BadSampleRequest, TablesExist
from ml_pipeline.progress import Progress
from ml_pipeline.sample_flaws import FlawCounts, spoil_ledger
from ml_pipeline.sample_model import (
    CategoryModel,
    FlawRates,
    LoyaltyRule,
    PromotionPlan,
    Purchases,
    SampleParameters,
    Shop,
    build_shop,
    expected_spend,
    purchase_probability,
    sample_latents,
    simulate_purchases,
)
from ml_pipeline.sample_rows import (
    TABLE_COLUMNS,
    Block,
    build_ledger,
    common_rows,
    customer_ids,
    customer_rows,
    day_seconds,
    header_rows,
    line_rows,
    product_ids,
)

DEFAULT_SEED = 20_240_101
MOST_CUSTOMERS = 10_000_000
"""A thousand customers make about 120 kB of tables a month; many more of them fill a disk by mistake."""
TRUTH_FILES = ("oracle.parquet", "latents.parquet", "catalogue.parquet", "parameters.json", "flaws.json")
_TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")
_LEDGER_FLAWS = 13


@dataclass(frozen=True)
class SampleSummary:
    """What was written. rows: of each table; transactions, lines and spend (currency units): of the clean truth."""

    tables_dir: Path
    truth_dir: Path
    first_day: date
    last_day: date
    rows: dict[str, int]
    transactions: int
    lines: int
    spend: float
    currency: str


def write_sample_tables(
    tables_dir: Path,
    truth_dir: Path | None = None,
    n_customers: int = 7500,
    n_products: int = 300,
    n_stores: int = 5,
    months: int = 24,
    seed: int = DEFAULT_SEED,
    progress: Progress | None = None,
    parameters: SampleParameters | None = None,
) -> SampleSummary:
    """Writes the seven tables into `tables_dir` and the truth into `truth_dir` (default: `<tables_dir>_truth` beside it).

    Truth: oracle.parquet (customer_id, as_of, total, one column per category, purchase_probability: the 30 days from as_of
    given the latent truth, in currency units, one row per customer who had signed up before as_of), latents.parquet,
    catalogue.parquet, parameters.json, flaws.json. Tables appear only when all of them are complete.
    Raises TablesExist where tables or a truth are already, BadSampleRequest.
    """
    truth_dir = truth_dir or default_truth_dir(tables_dir)
    if not 1 <= n_customers <= MOST_CUSTOMERS:
        raise BadSampleRequest(f"{n_customers} customers: a sample shop has 1 to {MOST_CUSTOMERS:,}.")
    shop = build_shop(parameters or SampleParameters(), seed, n_products, n_stores, months)
    _refuse_bad_places(tables_dir, truth_dir)
    sizes = {"n_customers": n_customers, "n_products": n_products, "n_stores": n_stores, "months": months}
    with _filled_folder(truth_dir) as new_truth, _filled_folder(tables_dir) as new_tables:
        rows, clean = _write_all(shop, n_customers, new_tables, new_truth, progress or Progress(bars=False))
        _write_json(new_truth / "parameters.json", _described(shop, sizes))
    return SampleSummary(
        tables_dir=tables_dir,
        truth_dir=truth_dir,
        first_day=shop.first_day,
        last_day=shop.last_day,
        rows=rows,
        transactions=clean["transactions"],
        lines=clean["lines"],
        spend=clean["spend_cents"] / 100,
        currency=shop.parameters.currency,
    )


def default_truth_dir(tables_dir: Path) -> Path:
    """`<tables_dir>_truth`, the folder beside the tables."""
    whole = tables_dir.absolute()
    return whole.with_name(f"{whole.name}_truth")


def oracle_days(shop: Shop) -> tuple[date, ...]:
    """The `as_of` days of the oracle: the day after the last day and the stated numbers of days earlier."""
    served = shop.last_day + timedelta(days=1)
    days = (served - timedelta(days=back) for back in shop.parameters.oracle_days_back)
    return tuple(day for day in days if day > shop.first_day)


def read_shop(truth_dir: Path) -> Shop:
    """The shop that a truth was written for, from its parameters.json. Raises BadSampleRequest when it cannot be read."""
    path = truth_dir / "parameters.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        sizes = {name: int(facts[name]) for name in ("seed", "n_products", "n_stores", "months")}
        return build_shop(_read_parameters(facts["parameters"]), **sizes)
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise BadSampleRequest(
            f"{path} does not describe a sample shop of this version ({type(broken).__name__}: {broken}). Write the sample "
            "tables anew, or move the truth away."
        ) from broken


def parameters_table(parameters: SampleParameters | None = None) -> str:
    """The parameters as a Markdown table; `docs/sample_data.md` holds it and a test compares."""
    rows = [f"| {name} | {value} |" for name, value in _flat("", parameters or SampleParameters())]
    return "\n".join(["| parameter | value |", "|---|---|", *rows])


class SampleFiles:
    """The open files of tables and truth; rows are appended block by block."""

    def __init__(self, tables_dir: Path, truth_dir: Path) -> None:
        self._tables_dir, self._truth_dir = tables_dir, truth_dir
        self._open = ExitStack()
        self._tables: dict[str, pa.csv.CSVWriter] = {}
        self._truth: dict[str, pa.parquet.ParquetWriter] = {}
        self.rows: Counter[str] = Counter()

    def __enter__(self) -> "SampleFiles":
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def add_rows(self, table: str, rows: pa.Table) -> None:
        """Appends text rows to a CSV table in the column order of `TABLE_COLUMNS`."""
        rows = rows.select(TABLE_COLUMNS[table])
        if table not in self._tables:
            options = pa.csv.WriteOptions(quoting_style="none", quoting_header="none", batch_size=16_384)
            writer = pa.csv.CSVWriter(self._tables_dir / f"{table}.csv", rows.schema, write_options=options)
            self._tables[table] = self._open.enter_context(writer)
        self._tables[table].write_table(rows)
        self.rows[table] += rows.num_rows

    def add_truth(self, name: str, rows: pa.Table) -> None:
        """Appends rows to a Parquet file of the truth."""
        if name not in self._truth:
            writer = pa.parquet.ParquetWriter(self._truth_dir / f"{name}.parquet", rows.schema)
            self._truth[name] = self._open.enter_context(writer)
        self._truth[name].write_table(rows)


def _write_all(
    shop: Shop, n_customers: int, tables_dir: Path, truth_dir: Path, progress: Progress
) -> tuple[dict[str, int], Counter[str]]:
    """Writes all tables and the parquet truth; rows per table, and the measures of the clean truth."""
    counts, clean = FlawCounts(), Counter[str]()
    per_block = shop.parameters.customers_per_block
    starts = range(0, n_customers, per_block)
    width = max(5, len(str(n_customers)))
    with progress.stage("sample tables", len(starts) + 1) as stage, SampleFiles(tables_dir, truth_dir) as files:
        stage.doing("products, stores, promotions")
        for table, rows in common_rows(shop, counts).items():
            files.add_rows(table, rows)
        files.add_truth("catalogue", _catalogue_rows(shop))
        stage.advance("customers and purchases")
        transaction, line = 1, 1
        for number, start in enumerate(starts):
            latents = sample_latents(shop, min(per_block, n_customers - start), number)
            block = Block(number, start + 1, latents, simulate_purchases(shop, latents, number))
            _count_clean(shop, block.purchases, clean)
            transaction, line = _write_block(shop, block, width, (transaction, line), files, counts)
            stage.advance("customers and purchases")
        stage.note(rows=dict(files.rows))
    _write_json(truth_dir / "flaws.json", {"flaws": counts.as_dict(), "clean": dict(clean)})
    return dict(files.rows), clean


def _write_block(
    shop: Shop, block: Block, width: int, next_ids: tuple[int, int], files: SampleFiles, counts: FlawCounts
) -> tuple[int, int]:
    """Writes a block's rows of all tables and of the truth; the next free transaction and line number."""
    draw = shop.generator(_LEDGER_FLAWS, block.number)
    ledger = build_ledger(shop, block, *next_ids)
    last_second = day_seconds(shop.last_day + timedelta(days=1)) - 1
    headers, lines = spoil_ledger(ledger, shop.parameters.flaws, last_second, draw, counts)
    files.add_rows("customer_details", customer_rows(shop, block, width, headers, counts))
    files.add_rows("store_sales_header", header_rows(headers, width))
    files.add_rows("store_sales_line_items", line_rows(lines))
    files.add_truth("latents", _latent_rows(shop, block, width))
    for as_of in oracle_days(shop):
        files.add_truth("oracle", _oracle_rows(shop, block, width, as_of))
    return ledger.next_transaction, ledger.next_line


def _oracle_rows(shop: Shop, block: Block, width: int, as_of: date) -> pa.Table:
    """One row per customer who signed up before `as_of`."""
    latents, horizon = block.latents, shop.parameters.oracle_horizon_days
    known = latents.since < shop.day_number(as_of)
    spend = expected_spend(shop, latents, as_of, horizon)[known]
    columns = {
        "customer_id": customer_ids(block.customer_numbers[known], width),
        "as_of": pa.array(np.full(known.sum(), np.datetime64(as_of, "D"))),
        "total": spend.sum(axis=1),
    }
    columns |= {name.lower(): spend[:, position] for position, name in enumerate(shop.parameters.category_names)}
    columns["purchase_probability"] = purchase_probability(shop, latents, as_of, horizon)[known]
    return pa.table(columns)


def _latent_rows(shop: Shop, block: Block, width: int) -> pa.Table:
    latents, first = block.latents, np.datetime64(shop.first_day, "D")
    names = shop.parameters.category_names
    affinities = {f"affinity_{name.lower()}": latents.affinities[:, place] for place, name in enumerate(names)}
    return pa.table(
        {
            "customer_id": customer_ids(block.customer_numbers, width),
            "customer_since": pa.array(first + latents.since),
            "enters": pa.array(first + latents.enters),
            "purchase_rate_per_day": latents.purchase_rate,
            "dropout_rate_per_day": latents.dropout_rate,
            "dropout_at_day": latents.dropout_at,
            "extra_lines": latents.extra_lines,
            "price_level": latents.price_level,
            "home_store": latents.home_store + 1,
        }
        | affinities
    )


def _catalogue_rows(shop: Shop) -> pa.Table:
    catalogue, names = shop.catalogue, np.array([name.lower() for name in shop.parameters.category_names])
    return pa.table(
        {
            "product_id": product_ids(shop),
            "category": names[catalogue.category].tolist(),
            "tier": catalogue.tier,
            "price_cents": catalogue.price_cents,
            "popularity_in_cell": catalogue.popularity,
        }
    )


def _count_clean(shop: Shop, purchases: Purchases, clean: Counter[str]) -> None:
    cents = np.zeros(len(shop.parameters.categories), dtype=np.int64)
    np.add.at(cents, purchases.category, purchases.amount_cents)
    clean["transactions"] += purchases.customer.size
    clean["lines"] += purchases.quantity.size
    clean["bulk_lines"] += int(purchases.bulk.sum())
    clean["spend_cents"] += int(cents.sum())
    for name, spent in zip(shop.parameters.category_names, cents, strict=True):
        clean[f"spend_cents_{name.lower()}"] += int(spent)


def _described(shop: Shop, sizes: dict[str, int]) -> dict[str, object]:
    facts = {"seed": shop.seed, **sizes, "first_day": shop.first_day, "last_day": shop.last_day}
    return {**facts, "parameters": asdict(shop.parameters)}


def _read_parameters(facts: dict[str, Any]) -> SampleParameters:
    """The inverse of `asdict` after a round through JSON."""
    nested = {"categories": CategoryModel, "promotions": PromotionPlan, "loyalty": LoyaltyRule}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    values |= {name: tuple(kind(**item) for item in facts[name]) for name, kind in nested.items()}
    values |= {"last_day": date.fromisoformat(facts["last_day"]), "flaws": FlawRates(**facts["flaws"])}
    return SampleParameters(**values)


def _write_json(path: Path, facts: dict[str, object]) -> None:
    path.write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf-8")


def _refuse_bad_places(tables_dir: Path, truth_dir: Path) -> None:
    tables, truth = tables_dir.resolve(), truth_dir.resolve()
    if truth == tables or tables in truth.parents:
        raise BadSampleRequest(
            f"The truth would be written to {truth_dir}, among the tables in {tables_dir}, where a model could learn from "
            "it. Choose a folder outside the tables."
        )
    for folder in (tables_dir, truth_dir):
        if folder.exists() and not folder.is_dir():
            raise BadSampleRequest(f"{folder} is a file; sample tables need a folder. Choose another place.")
    names = [f"{table}{ending}" for table in TABLE_COLUMNS for ending in _TABLE_ENDINGS]
    _refuse_existing(tables_dir, names, "tables")
    _refuse_existing(truth_dir, TRUTH_FILES, "the truth of other sample tables")


def _refuse_existing(folder: Path, names: Sequence[str], what: str) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise TablesExist(
            f"{folder} already holds {what}: {', '.join(there)}. Sample data is never written over existing files; choose "
            "another folder, or move these away first."
        )


@contextmanager
def _filled_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` when all went well; otherwise nothing of it remains.

    It lies inside `folder`, because that one may be a mount of its own, across which a move is no rename.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        yield partial
        for path in sorted(partial.iterdir()):
            path.replace(folder / path.name)
    except BaseException:
        shutil.rmtree(folder if created else partial, ignore_errors=True)
        raise
    partial.rmdir()


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    """Dotted name and text of every leaf of nested dataclasses; lists of dataclasses by their name or status."""
    for part in fields(value) if is_dataclass(value) else ():
        inner = getattr(value, part.name)
        name = f"{prefix}{part.name}"
        if is_dataclass(inner):
            yield from _flat(f"{name}.", inner)
        elif isinstance(inner, tuple) and inner and is_dataclass(inner[0]):
            for item in inner:
                first, *rest = (f"{key} {number}" for key, number in asdict(item).items())
                yield f"{name}: {first.split(' ', 1)[1]}", ", ".join(rest)
        else:
            yield name, ", ".join(map(str, inner)) if isinstance(inner, tuple) else str(inner)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.sample_data", description=__doc__)
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder for the seven tables")
    parser.add_argument("--truth", type=Path, metavar="DIR", help="folder for the truth (default: DIR_truth)")
    parser.add_argument("--customers", type=int, default=7500, help=f"1 to {MOST_CUSTOMERS:,} (default: 7500)")
    parser.add_argument("--products", type=int, default=300)
    parser.add_argument("--stores", type=int, default=5)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--parameters", action="store_true", help="only show the parameters as a Markdown table")
    add_progress_argument(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the tables are written. Raises what `write_sample_tables` raises."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.parameters:
        sys.stdout.write(parameters_table() + "\n")
        return 0
    if asked.into is None:
        parser.error("--into DIR is needed: the folder for the tables")
    progress = open_progress(asked)
    summary = write_sample_tables(
        asked.into,
        asked.truth,
        n_customers=asked.customers,
        n_products=asked.products,
        n_stores=asked.stores,
        months=asked.months,
        seed=asked.seed,
        progress=progress,
    )
    files = sorted(path.name for path in asked.into.glob("*.csv"))
    progress.close({"customers": asked.customers, "files": files, "rows": summary.rows})
    if not progress.is_lines:
        sys.stdout.write(
            f"{summary.rows['customer_details']:,} customer rows, {summary.rows['store_sales_header']:,} headers and "
            f"{summary.rows['store_sales_line_items']:,} lines from {summary.first_day} to {summary.last_day} in "
            f"{summary.tables_dir}; the truth is in {summary.truth_dir}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
