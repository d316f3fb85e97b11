"""Reads a folder of tables into the engine: every column text, every row numbered, personal columns redacted.

The only place that knows files and DuckDB's readers; what follows sees Ibis tables.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.csv_text import check_gzip, is_utf8, is_utf16, read_header, recode, split_records
from ml_pipeline.errors import AmbiguousTable, MissingColumns, MissingTables, UnreadableTable
from ml_pipeline.schema import (
    CONFIG_FILE,
    HEADERS,
    LINES,
    NULL_TEXT,
    OUTER_WHITESPACE,
    SPREADSHEET_INTEGER,
    TABLES,
    Column,
    DatasetConfig,
    TableSchema,
    canonical_text,
    is_personal,
)

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".csv.gz", ".parquet")
REDACTED = "(redacted)"
ROW_NUMBER = "row_number"


@dataclass(frozen=True)
class TableFile:
    """How one file was read: `columns` maps our names to the file's, `extra` are columns that we do not know."""

    table: str
    file: str
    format: str
    encoding: str | None
    delimiter: str | None
    rows: int
    columns: dict[str, str]
    extra: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawTables:
    """The tables as they came, by our name: text columns (null = empty field) and `row_number`, 1-based.

    `malformed` holds, for tables with broken CSV records, row_number, fields (int) and text (redacted where the
    table has personal columns); these rows are in `files[...].rows` and not in `tables`.
    """

    tables: dict[str, ir.Table]
    files: dict[str, TableFile] = field(default_factory=dict)
    malformed: dict[str, ir.Table] = field(default_factory=dict)

    def __contains__(self, table: str) -> bool:
        return table in self.tables

    def __getitem__(self, table: str) -> ir.Table:
        return self.tables[table]

    def has(self, table: str, column: str) -> bool:
        """Whether the table was handed over with that column."""
        return table in self.tables and column in self.tables[table].columns


def text_of(column: ir.Value) -> ir.StringValue:
    """`schema.canonical_text` as an expression: without outer blanks, '' for nothing; never null."""
    text = cast(ir.StringValue, column).re_replace(OUTER_WHITESPACE, "").re_replace(NULL_TEXT, "")
    return cast(ir.StringValue, text.fill_null(""))


def id_of(column: ir.Value) -> ir.StringValue:
    """`schema.canonical_id` of a text column as an expression; never null."""
    return cast(ir.StringValue, text_of(column).re_replace(SPREADSHEET_INTEGER, r"\1"))


def materialise(engine: Backend, rows: ir.Table, name: str, stays: bool = False) -> ir.Table:
    """Computes a table once and keeps it in the engine under a fresh name that begins with `name`.

    stays: into the engine's database, to be read by all of its connections; else only until this one is closed, which
    costs less (nothing is compressed; what exceeds memory is spilled).
    """
    return engine.create_table(ibis.util.gen_name(name), rows, temp=not stays)


def drop_tables(engine: Backend, *tables: ir.Table) -> None:
    """Frees tables of the engine (also those that expressions over a single table rest on)."""
    for rows in tables:
        for source in rows.op().find(ops.DatabaseTable):
            engine.drop_table(source.name, force=True)


def read_tables(engine: Backend, data_dir: Path, config: DatasetConfig) -> RawTables:
    """All tables of a folder.

    Raises AmbiguousTable (two files for one table), UnreadableTable (a file that is not what its name says),
    MissingTables or MissingColumns; the last two name everything that is missing, tables and columns alike.
    """
    paths = find_tables(data_dir)
    plans = {table: _plan(engine, path, TABLES[table], config.columns.get(table, {})) for table, path in paths.items()}
    _require(data_dir, config, plans)
    raw = RawTables({})
    for table, plan in plans.items():
        rows, malformed, file = _load(engine, plan)
        raw.tables[table] = rows
        raw.files[table] = file
        if malformed is not None:
            raw.malformed[table] = malformed
        log.info("table read", extra={"table": table, "file": file.file, "rows": file.rows, "encoding": file.encoding})
    return raw


def read_table(
    engine: Backend, path: Path, schema: TableSchema, mapped: Mapping[str, str]
) -> tuple[ir.Table, ir.Table | None, TableFile]:
    """One CSV or Parquet file: its rows, its malformed rows if there are any (see RawTables), and how it was read.

    mapped: ours -> theirs. Raises UnreadableTable, and MissingColumns naming all that are missing.
    """
    plan = _plan(engine, path, schema, mapped)
    require_columns(path.name, schema, mapped, plan.header, plan.names, plan.problems)
    return _load(engine, plan)


def require_columns(
    where: str,
    schema: TableSchema,
    mapped: Mapping[str, str],
    header: Sequence[str],
    names: Sequence[str],
    problems: Sequence[str],
) -> None:
    """Raises MissingColumns when a required column is not among `names` or there are problems."""
    listed = missing_columns(schema, mapped, names) + list(problems)
    if listed:
        raise MissingColumns(f"{where}: {', '.join(listed)} (it has {', '.join(map(repr, header))}).")


def missing_columns(schema: TableSchema, mapped: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """A clause for each required column that is neither there nor mapped."""
    return [
        f"column {' or '.join(map(repr, _names_of(column, mapped)))} is missing"
        for column in schema.columns
        if column.required and column.name not in names and column.name not in mapped
    ]


def find_tables(data_dir: Path) -> dict[str, Path]:
    """The file of each table that is there, in the order of the schema. Raises AmbiguousTable."""
    found: dict[str, Path] = {}
    for table in TABLES:
        names = {table + suffix for suffix in SUFFIXES}
        paths = sorted(path for path in data_dir.iterdir() if path.name.lower() in names and path.is_file())
        if len(paths) > 1:
            listed = " and ".join(path.name for path in paths)
            raise AmbiguousTable(f"{listed} are both the table {table} in {data_dir}; keep one of them.")
        if paths:
            found[table] = paths[0]
    return found


# ---- which column of a file is which of ours


@dataclass(frozen=True)
class _Plan:
    """A file, its header, and for each of its columns the name it gets in the engine."""

    path: Path
    schema: TableSchema
    delimiter: str | None
    header: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ours(self) -> dict[str, str]:
        known = self.schema.column_names
        return {name: theirs for name, theirs in zip(self.names, self.header, strict=True) if name in known}


def _plan(engine: Backend, path: Path, schema: TableSchema, mapped: Mapping[str, str]) -> _Plan:
    delimiter: str | None = None
    types: tuple[str, ...] = ()
    if path.name.lower().endswith(".parquet"):
        header, types = _parquet_header(engine, path)
    else:
        wanted = [name for column in schema.columns for name in _names_of(column, mapped)]
        header, delimiter = read_header(path, wanted)
    positions, problems = match_columns(header, schema, mapped)
    return _Plan(path, schema, delimiter, header, engine_names(header, positions), types, tuple(problems))


def _names_of(column: Column, mapped: Mapping[str, str]) -> tuple[str, ...]:
    return (mapped[column.name],) if column.name in mapped else (column.name, *column.aliases)


def match_columns(
    header: Sequence[str], schema: TableSchema, mapped: Mapping[str, str]
) -> tuple[dict[str, int], list[str]]:
    """Position of each of our columns in a file's header, and what is wrong with it.

    By the mapped name (ours -> theirs), else by ours or an alias; exactly, else without case and outer blanks.
    """
    positions: dict[str, int] = {}
    problems: list[str] = []
    folded = [canonical_text(name).lower() for name in header]
    for column in schema.columns:
        names = _names_of(column, mapped)
        at = [i for i, name in enumerate(header) if name in names] or [
            i for i, name in enumerate(folded) if name in {wanted.strip().lower() for wanted in names}
        ]
        if len(at) > 1:
            problems.append(f"{len(at)} columns are called {' or '.join(map(repr, names))}")
        elif at:
            positions[column.name] = at[0]
        elif column.name in mapped:
            problems.append(f"column {names[0]!r}, which stands for {column.name}, is not there")
    return positions, problems


def engine_names(header: Sequence[str], positions: dict[str, int]) -> tuple[str, ...]:
    """Our names where matched, else the file's own, made distinct without case (as the engine compares them)."""
    ours = {position: name for name, position in positions.items()}
    taken = {name.lower() for name in ours.values()} | {ROW_NUMBER}
    names = []
    for i, theirs in enumerate(header):
        name = ours.get(i)
        if name is None:
            name = base = theirs.strip() or f"column_{i + 1}"
            n = 1
            while name.lower() in taken:
                n += 1
                name = f"{base}_{n}"
            taken.add(name.lower())
        names.append(name)
    return tuple(names)


def _require(data_dir: Path, config: DatasetConfig, plans: dict[str, _Plan]) -> None:
    missing_tables = [table for table in config.required_tables if table not in plans]
    problems = []
    for table, plan in plans.items():
        mapped = config.columns.get(table, {})
        listed = missing_columns(plan.schema, mapped, plan.names)
        amount_needed = table == HEADERS.name and LINES.name not in plans and not missing_tables
        if amount_needed and "total_amount" not in plan.names and "total_amount" not in mapped:
            listed.append("column 'total_amount' is missing (there are no lines)")
        listed += plan.problems
        if listed:
            problems.append(f"{plan.path.name}: {', '.join(listed)} (it has {', '.join(map(repr, plan.header))})")
    if not missing_tables and not problems:
        return
    found = ", ".join(sorted(path.name for path in data_dir.iterdir())) or "nothing"
    sentences = []
    if missing_tables:
        sentences.append(f"{data_dir} has no file for {', '.join(missing_tables)} ({', '.join(SUFFIXES)})")
    sentences += problems
    way_out = f'Add what is missing, or name your columns in {CONFIG_FILE} under [columns.<table>] as ours = "theirs"'
    if set(missing_tables) - {HEADERS.name}:
        way_out += "; with an empty [targets] the header alone suffices"
    error = MissingTables if missing_tables else MissingColumns
    raise error(f"{'; '.join(sentences)}. Found: {found}. {way_out}.")


# ---- headers of files


def _parquet_header(engine: Backend, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        described = engine.con.execute(f"DESCRIBE SELECT * FROM read_parquet({_quoted(path)})").fetchall()
    except duckdb.Error as error:
        raise UnreadableTable(f"{path.name} is not a readable Parquet file: {_first_line(error)}.") from error
    return tuple(row[0] for row in described), tuple(row[1] for row in described)


# ---- rows into the engine


def _load(engine: Backend, plan: _Plan) -> tuple[ir.Table, ir.Table | None, TableFile]:
    name = ibis.util.gen_name(f"raw_{plan.schema.name}")
    encoding: str | None = None
    warnings: list[str] = []
    malformed: ir.Table | None = None
    with _source_order(engine):
        if plan.delimiter is None:
            _load_parquet(engine, plan, name)
        else:
            encoding, warnings, malformed = _load_csv(engine, plan, name)
    rows = engine.table(name)
    if ROW_NUMBER not in rows.columns:
        rows = rows.mutate(row_number=rows.rowid() + 1)
    count = int(rows.count().execute()) + (0 if malformed is None else int(malformed.count().execute()))
    known = set(plan.schema.column_names)
    file = TableFile(
        table=plan.schema.name,
        file=plan.path.name,
        format="parquet" if plan.delimiter is None else "csv",
        encoding=encoding,
        delimiter=plan.delimiter,
        rows=count,
        columns=plan.ours,
        extra=tuple(t for n, t in zip(plan.names, plan.header, strict=True) if n not in known),
        warnings=tuple(warnings),
    )
    return rows, malformed, file


@contextmanager
def _source_order(engine: Backend) -> Iterator[None]:
    """Within it, a table made from a file keeps the file's order, so that its row ids number the source rows."""
    (before,) = engine.con.execute("SELECT current_setting('preserve_insertion_order')").fetchall()[0]
    engine.con.execute("SET preserve_insertion_order = true")
    try:
        yield
    finally:
        engine.con.execute(f"SET preserve_insertion_order = {before}")


def _load_parquet(engine: Backend, plan: _Plan, name: str) -> None:
    selected = ", ".join(
        f"{_selected(plan, ours, _parquet_text(_identifier(theirs), kind))} AS {_identifier(ours)}"
        for ours, theirs, kind in zip(plan.names, plan.header, plan.types, strict=True)
    )
    try:
        engine.con.execute(
            f"CREATE TABLE {name} AS SELECT {selected}, file_row_number + 1 AS {ROW_NUMBER} "
            f"FROM read_parquet({_quoted(plan.path)}, file_row_number = true)"
        )
    except duckdb.Error as error:
        raise UnreadableTable(f"{plan.path.name} is not a readable Parquet file: {_first_line(error)}.") from error


def _parquet_text(column: str, kind: str) -> str:
    """A native value as text that loses no digit: whole floats as integers, bytes as the text that they are."""
    if kind in ("FLOAT", "DOUBLE"):
        whole = f"isfinite({column}) AND {column} = trunc({column}) AND abs({column}) < 1e18"
        return f"CASE WHEN {whole} THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
    if kind == "BLOB":
        return f"CAST(decode({column}) AS VARCHAR)"
    return f"CAST({column} AS VARCHAR)"


def _selected(plan: _Plan, name: str, text: str) -> str:
    """A column as the engine gets it: personal values never enter, only whether there was one."""
    return f"CASE WHEN {text} <> '' THEN '{REDACTED}' END" if is_personal(plan.schema.name, name) else text


def _load_csv(engine: Backend, plan: _Plan, name: str) -> tuple[str, list[str], ir.Table | None]:
    """Loads a CSV file; what DuckDB's strict reader refuses is recoded or, record by record, repaired first."""
    encoding = "utf-8"
    warnings: list[str] = []
    if plan.path.name.lower().endswith(".gz"):
        check_gzip(plan.path)
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        source = plan.path
        if is_utf16(source):
            source, encoding = recode(plan.path, Path(folder), "utf-16"), "utf-16"
        refused = _try_csv(engine, plan, source, name)
        if refused and encoding == "utf-8" and not is_utf8(source):
            source, encoding = recode(plan.path, Path(folder), "cp1252"), "windows-1252"
            warnings.append("the file is not UTF-8 and was read as Windows-1252: check the letters beyond a-z")
            refused = _try_csv(engine, plan, source, name)
        if not refused:
            return encoding, warnings, None
        malformed = _load_repaired(engine, plan, source, name, Path(folder))
        count = int(malformed.count().execute())
        warnings.append(f"the file breaks the rules of CSV ({refused}); {count} rows could not be read")
        return encoding, warnings, malformed


def _try_csv(engine: Backend, plan: _Plan, source: Path, name: str) -> str | None:
    """None when the file was loaded, else what the reader says."""
    read = [f"c{i}" for i in range(len(plan.names))]
    selected = ", ".join(
        f"{_selected(plan, ours, column)} AS {_identifier(ours)}" for ours, column in zip(plan.names, read, strict=True)
    )
    try:
        engine.con.execute(
            f"CREATE TABLE {name} AS SELECT {selected} FROM {_reader(source, read, plan.delimiter or ',', header=True)}"
        )
    except duckdb.Error as error:
        return _complaint(error)
    return None


def _reader(source: Path, columns: Sequence[str], delimiter: str, header: bool) -> str:
    types = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    return (
        f"read_csv({_quoted(source)}, auto_detect = false, header = {str(header).lower()}, columns = {{{types}}}, "
        f"delim = '{delimiter}', quote = '\"', escape = '\"')"
    )


def _load_repaired(engine: Backend, plan: _Plan, source: Path, name: str, folder: Path) -> ir.Table:
    """Loads the good records of a broken CSV file as `name`; returns the broken ones."""
    good, bad = folder / "good.csv", folder / "bad.csv"
    split_records(source, plan.delimiter or ",", len(plan.names), good, bad)
    read = [f"c{i}" for i in range(len(plan.names))]
    selected = ", ".join(
        f"{_selected(plan, ours, column)} AS {_identifier(ours)}" for ours, column in zip(plan.names, read, strict=True)
    )
    engine.con.execute(
        f"CREATE TABLE {name} AS SELECT {selected}, {ROW_NUMBER}::BIGINT AS {ROW_NUMBER} "
        f"FROM {_reader(good, [ROW_NUMBER, *read], ',', header=False)}"
    )
    private = any(is_personal(plan.schema.name, column) for column in plan.names)
    text = f"'{REDACTED}'" if private else "text"
    engine.con.execute(
        f"CREATE TABLE {name}_malformed AS SELECT {ROW_NUMBER}::BIGINT AS {ROW_NUMBER}, fields::BIGINT AS fields, "
        f"{text} AS text FROM {_reader(bad, [ROW_NUMBER, 'fields', 'text'], ',', header=False)}"
    )
    return engine.table(f"{name}_malformed")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _complaint(error: Exception) -> str:
    """What DuckDB found wrong, without the row's content and without its own way out."""
    where, *details = str(error).strip().splitlines()
    what = next((line for line in details if not line.startswith("Original Line")), "").rstrip(".")
    return f"{where.rpartition(':')[0].rpartition(': ')[2]}: {where.rpartition(': ')[2]}, {what}"
