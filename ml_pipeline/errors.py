"""What can be wrong with tables, settings of a data set, bundles and snapshots, each named for the fact.

A message gives the value, the rule and the way out; it is shown to people as it stands.
"""


class PipelineError(Exception):
    """Base of everything the pipeline refuses."""


class DataError(PipelineError):
    """The tables cannot be used as they are."""


class MissingDataFolder(DataError):
    """The folder of tables does not exist."""


class MissingTables(DataError):
    """Required tables are absent."""


class MissingColumns(DataError):
    """Required columns are absent."""


class AmbiguousTable(DataError):
    """Two files claim to be the same table."""


class UnreadableTable(DataError):
    """A table's file cannot be read as what its name says."""


class RowsLost(DataError):
    """Rows or money out are not those that came in: a fault of the cleaning code, never of the tables."""


class BadDatasetConfig(DataError):
    """`dataset.toml` says something impossible."""


class NotEnoughHistory(DataError):
    """The history is too short for what was asked."""


class BadHistory(DataError):
    """A raw history has an impossible line."""


class ModelError(PipelineError):
    """Bundle or snapshot cannot serve."""


class PointerUnreadable(ModelError):
    """The system does not let the pointer be read."""


class NoServingModel(ModelError):
    """No bundle has been promoted in this models folder."""


class BundleMismatch(ModelError):
    """A bundle does not fit the code or its own files."""


class SnapshotMismatch(ModelError):
    """A snapshot does not fit its bundle or its own files."""


class TooFewToLearnFrom(DataError):
    """A sample of so few customers teaches nothing."""


class OlderTables(DataError):
    """The tables end before those that serve."""


class NotAllowedToServe(ModelError):
    """Whoever started a command did not let what it has made serve."""


class UnknownVersion(ModelError):
    """There is no bundle of this name, or none with a snapshot of its own."""


class NothingToRollBackTo(ModelError):
    """No earlier bundle is left that could serve."""


class BadSampleRequest(DataError):
    """Sample tables of this size or in this place cannot be made."""


class TablesExist(DataError):
    """The folder to write tables into already holds some."""


class LabelOverlap(PipelineError):
    """A training row's label reaches into the window that a model is judged on."""


class CustomerFileError(PipelineError):
    """Base of what is wrong with a file of customers as a whole."""


class UnsupportedFileType(CustomerFileError):
    """The file is of a kind that is not read."""


class EmptyFile(CustomerFileError):
    """The file has no content."""


class MissingHeader(CustomerFileError):
    """The first row of a file is data."""


class NoDataRows(CustomerFileError):
    """The file has a header and no row below it."""


class UnreadableFile(CustomerFileError):
    """The content is not what the name says, or is damaged."""


class MisnamedFile(UnreadableFile):
    """The content is of another kind than the name says."""


class DamagedFile(UnreadableFile):
    """The file is of a kind that is read, but cut off or broken."""


class PasswordProtected(UnreadableFile):
    """The file is locked by a password or otherwise encrypted."""


class NoWorksheet(UnreadableFile):
    """A workbook has charts or macros, but no sheet of cells."""


class UnknownSheet(CustomerFileError):
    """The workbook has no sheet of the name that was asked for."""


class NestedColumn(CustomerFileError):
    """A Parquet column holds lists, records or raw bytes instead of one value per row."""


class UnevenRow(CustomerFileError):
    """A row has more cells than the header."""


class FileTooLarge(CustomerFileError):
    """Base of what is larger than is taken: rows, columns, cells, bytes once unpacked, memory to open it."""


class TooManyColumns(FileTooLarge):
    """The header has more columns than are taken."""


class TooManyRows(FileTooLarge):
    """The file has more rows than are taken."""


class TooManyCells(FileTooLarge):
    """A sheet spans more cells than are read."""


class RowsTooLong(FileTooLarge):
    """One row, or the rows of one chunk together, hold more bytes than are taken."""


class UnpacksTooLarge(FileTooLarge):
    """A compressed file unpacks to more bytes than are taken."""


class TooLargeToOpen(FileTooLarge):
    """Opening the file takes more memory or time than a reader is given."""


class DoesNotFitXlsx(CustomerFileError):
    """The rows exceed what an Excel sheet can hold."""


class CustomerListError(PipelineError):
    """Base of what is wrong with a question for a list of a file's customers."""


class UnknownFlag(CustomerListError):
    """There is no flag of this name."""


class UnknownSegment(CustomerListError):
    """There is no segment of this name."""


class ImpossibleThreshold(CustomerListError):
    """No amount of money can be compared with this one."""


class ImpossiblePage(CustomerListError):
    """A list has no page that begins before it or has fewer than no entries."""


class BadSummary(DataError):
    """A customer's purchases in numbers (x, t_x, T or x, m) are impossible."""


class SummaryModelError(PipelineError):
    """Base of what the summary model cannot be asked."""


class MissingSummaryInput(SummaryModelError):
    """A model was asked for that needs a number which is not known."""


class UnknownModelType(SummaryModelError):
    """The bundle has no summary model of this name."""


class NoConvergence(DataError):
    """A likelihood has no maximum that these customers pin down."""


class UnboundedMean(NoConvergence):
    """Gamma-Gamma's q is 1 or less: the average value over all customers would be infinite."""


class FeatureLeak(PipelineError):
    """A column of the training matrix knows what happened on or after its as_of."""


class ReaderLost(Exception):
    """The process that was reading a file was ended from outside, or met a fault of our own: no fault of the file."""
