"""Results of bulk jobs over HTTP: the file, whole, in parts or as far as it is, and lists of its customers."""

import hashlib
from pathlib import Path
from typing import Any

from flask import Response, request, send_file
from flask_openapi3 import APIBlueprint

from routes.bulk_messages import ConversionAnswer, CustomersAnswer, CustomersQuery, DownloadQuery, JobPath
from routes.bulk_prediction import BULK_RESPONSES, BULK_TAG, file_of
from routes.context import caller, services
from routes.messages import ErrorAnswer, answer
from services.bulk_service import ConversionUnderWay
from services.job_results import ZIP
from services.job_table import COMPLETED

RETRY_SECONDS = 2
FILES: Any = file_of("csv", "xlsx", "parquet")
FILES["content"][ZIP] = {"schema": {"type": "string", "format": "binary"}}

results_api = APIBlueprint(
    "bulk_results", __name__, url_prefix="/bulk", abp_tags=[BULK_TAG], abp_responses=BULK_RESPONSES
)


@results_api.get(
    "/download/<job_id>",
    summary="The result of a job",
    responses={
        200: FILES,
        202: ConversionAnswer,
        206: FILES,
        404: ErrorAnswer,
        409: ErrorAnswer,
        416: ErrorAnswer,
    },
)
def download(path: JobPath, query: DownloadQuery) -> Response:
    """The uploaded rows with the predictions beside them; of sample tables a zip, without a `format`. A format other than the upload's: 202, ask again, the file.

    `Range` (with `If-Range`) gives a part of the file. `partial=true` gives the rows that are done so far, with
    `X-Partial-Rows: <done>/<total>` (`*` where the total is not known yet).
    """
    query.check()
    if query.partial and services().bulk.status(path.job_id, caller()).status != COMPLETED:
        return _partial(path.job_id)
    result = services().bulk.result(path.job_id, query.format, caller())
    if isinstance(result, ConversionUnderWay):
        return _under_way(result)
    if not request.headers.get("Range", "bytes=").lower().startswith("bytes="):
        del request.environ["HTTP_RANGE"]  # a unit that is not known is to be passed over: RFC 9110, 14.2
    tag = hashlib.sha256(result.key.encode()).hexdigest()[:32]  # a key's content never changes
    with services().objects.local(result.key) as file:
        return _attached(file, result.media_type, result.filename, etag=tag)


@results_api.get(
    "/customers/<job_id>",
    summary="The customers of a completed job",
    responses={200: CustomersAnswer, 404: ErrorAnswer, 409: ErrorAnswer},
)
def customers(path: JobPath, query: CustomersQuery) -> Response:
    """Each customer of the file once, the highest predicted total first; with `flag` or `segment` only those."""
    found = services().bulk.customers(
        path.job_id, caller(), query.flag, query.segment, limit=query.limit, offset=query.offset
    )
    return answer(CustomersAnswer, found)


def _attached(path: Path, media_type: str, filename: str, **options: Any) -> Response:
    """The file under its name. send_file adds the charset of text itself."""
    return send_file(path, media_type.split(";")[0], as_attachment=True, download_name=filename, max_age=0, **options)


def _partial(job_id: str) -> Response:
    """Whole and without ranges: the next answer has more rows."""
    with services().bulk.partial(job_id, caller()) as done:
        response = _attached(done.path, done.media_type, done.filename, conditional=False, etag=False)
    response.headers["X-Partial-Rows"] = f"{done.rows}/{'*' if done.rows_total is None else done.rows_total}"
    response.headers["Accept-Ranges"] = "none"
    return response


def _under_way(conversion: ConversionUnderWay) -> Response:
    message = f"The result is being made as {conversion.format}; ask again in {RETRY_SECONDS} seconds."
    content = {"job_id": conversion.job_id, "format": conversion.format, "status": "processing", "message": message}
    response = answer(ConversionAnswer, content, 202)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response
