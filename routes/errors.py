"""Errors as answers: one table from class to status, one handler, one shape."""

import logging
from http import HTTPStatus

from flask import Flask, Response, g, jsonify
from gunicorn.http.errors import ParseException
from pydantic import ValidationError
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
)
from werkzeug.exceptions import UnsupportedMediaType as WerkzeugUnsupportedMediaType

from ml_pipeline import errors as pipeline
from services import errors as services

log = logging.getLogger(__name__)

STATUS: dict[type[Exception], HTTPStatus] = {
    services.InvalidRequest: HTTPStatus.BAD_REQUEST,
    services.IdentityRequired: HTTPStatus.UNAUTHORIZED,
    services.UnknownCustomer: HTTPStatus.NOT_FOUND,
    services.UnknownJob: HTTPStatus.NOT_FOUND,
    services.JobNotFinished: HTTPStatus.CONFLICT,
    services.JobFailed: HTTPStatus.CONFLICT,
    services.JobInProgress: HTTPStatus.CONFLICT,
    services.JobOver: HTTPStatus.CONFLICT,
    services.JobCancelled: HTTPStatus.CONFLICT,
    services.NothingToRetry: HTTPStatus.CONFLICT,
    services.IdempotencyConflict: HTTPStatus.CONFLICT,
    services.TooManyJobs: HTTPStatus.TOO_MANY_REQUESTS,
    services.ChunkGivenUp: HTTPStatus.CONFLICT,
    services.ConversionFailed: HTTPStatus.CONFLICT,
    services.LeaseLost: HTTPStatus.CONFLICT,
    services.WorkersLost: HTTPStatus.CONFLICT,
    services.JobCrashed: HTTPStatus.CONFLICT,
    services.TrainingOutOfMemory: HTTPStatus.CONFLICT,
    services.TrainingCrashed: HTTPStatus.CONFLICT,
    services.NoResultFile: HTTPStatus.CONFLICT,
    services.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    services.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    services.QueueUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    services.JobStoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    services.ObjectStoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    pipeline.CustomerFileError: HTTPStatus.BAD_REQUEST,
    pipeline.UnsupportedFileType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    pipeline.FileTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    pipeline.ReaderLost: HTTPStatus.SERVICE_UNAVAILABLE,
    pipeline.CustomerListError: HTTPStatus.BAD_REQUEST,
    pipeline.SummaryModelError: HTTPStatus.BAD_REQUEST,
    pipeline.ModelError: HTTPStatus.SERVICE_UNAVAILABLE,
    pipeline.UnknownVersion: HTTPStatus.NOT_FOUND,
    pipeline.NothingToRollBackTo: HTTPStatus.CONFLICT,
    services.VersionUnusable: HTTPStatus.CONFLICT,
    pipeline.DataError: HTTPStatus.CONFLICT,
    pipeline.LabelOverlap: HTTPStatus.INTERNAL_SERVER_ERROR,
    pipeline.FeatureLeak: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error has the status of the nearest of its classes that is here."""

IN_WORDS = {
    "model_type": "a JSON object is needed here",
    "dict_type": "a JSON object is needed here",
    "list_type": "a JSON list is needed here",
    "bool_parsing": "true or false is needed here",
    "int_parsing": "a whole number is needed here",
}
RETRY_SECONDS = {
    services.JobNotFinished: 2,
    services.JobInProgress: 5,
    services.ConversionFailed: 5,
    services.TooManyJobs: 10,
}


def status_of(problem: type[BaseException]) -> HTTPStatus | None:
    """The status of an error class; None if the table has neither it nor one of its bases."""
    return next((STATUS[base] for base in problem.__mro__ if base in STATUS), None)


def error_answer(name: str, message: str, status: int) -> Response:
    """The one shape of every error."""
    response = jsonify(error=name, message=message)
    response.status_code = status
    return response


def register_errors(app: Flask) -> None:
    """Makes every error of the app come out in this shape."""
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(ParseException, _answer_broken_body)
    app.register_error_handler(Exception, _answer)


def validation_answer(problem: ValidationError) -> Response:
    """For parameters and forms that do not fit their model."""
    return error_answer(services.InvalidRequest.__name__, said_of(problem), HTTPStatus.BAD_REQUEST)


def said_of(problem: ValidationError) -> str:
    """What is wrong with which field, in words."""
    return " ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'The body'}: {IN_WORDS.get(one['type'], one['msg'])}{_given(one)}."
        for one in problem.errors(include_url=False, include_context=False)
    )


def _given(one: object) -> str:
    value = one.get("input") if isinstance(one, dict) else None
    return f", not {str(value)[:60]!r}" if isinstance(value, (str, int, float)) else ""


def _answer(problem: Exception) -> Response:
    status = status_of(type(problem))
    if status is None:
        log.exception("internal error")
        return error_answer(
            "InternalError",
            f"The service met an error of its own; the log has it under request id {g.get('request_id')}. "
            "If it stays, report it with that id.",
            HTTPStatus.INTERNAL_SERVER_ERROR,
        )
    response = error_answer(type(problem).__name__, str(problem), status)
    seconds = next((RETRY_SECONDS[base] for base in type(problem).__mro__ if base in RETRY_SECONDS), None)
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    return response


def _answer_broken_body(_problem: ParseException) -> Response:
    """Of a body in chunks, which is read only here. What gunicorn says of it quotes the body, which may be personal."""
    return error_answer(
        services.InvalidRequest.__name__,
        "The body comes in chunks (Transfer-Encoding: chunked), and one of them does not begin or end as HTTP/1.1 has it. Let "
        "an HTTP library make the chunks, or send the body with a Content-Length.",
        HTTPStatus.BAD_REQUEST,
    )


def _answer_http(problem: HTTPException) -> Response:
    """What Flask itself refuses; redirects and ready-made answers pass as they are."""
    if problem.response is not None or problem.code is None or problem.code < HTTPStatus.BAD_REQUEST:
        return problem.get_response()  # type: ignore[return-value]
    name, message = _in_words(problem)
    response = error_answer(name, message, problem.code)
    if isinstance(problem, MethodNotAllowed) and problem.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(problem.valid_methods))
    if isinstance(problem, RequestedRangeNotSatisfiable) and problem.length is not None:
        response.headers["Content-Range"] = f"{problem.units} */{problem.length}"
    return response


def _in_words(problem: HTTPException) -> tuple[str, str]:
    from flask import current_app, request

    if isinstance(problem, NotFound):
        return (
            "UnknownRoute",
            f"There is nothing at {request.path[:200]}. GET / lists what there is, /docs explains it.",
        )
    if isinstance(problem, MethodNotAllowed):
        allowed = ", ".join(sorted(set(problem.valid_methods or ()) - {"OPTIONS", "HEAD"}))
        return "MethodNotAllowed", f"{request.path[:200]} does not take {request.method}; it takes {allowed}."
    if isinstance(problem, RequestEntityTooLarge):
        limit = request.max_content_length or current_app.config["MAX_CONTENT_LENGTH"]
        if request.content_length is not None and request.content_length <= limit:  # it is what the form is made of
            return services.RequestTooLarge.__name__, (
                f"The form has more than {request.max_form_parts:,} parts, or more than "
                f"{(request.max_form_memory_size or 0) // 1000:,} kB in parts without a file name. Send the file with its "
                "name, for example: curl -F file=@customers.csv http://127.0.0.1:5000/bulk/predict"
            )
        return services.RequestTooLarge.__name__, (
            f"The body is larger than {limit / 1024 / 1024:,.0f} MB, the limit of this route. Send less at once"
            " (the operator can raise MAX_UPLOAD_MB for files)."
        )
    if isinstance(problem, RequestedRangeNotSatisfiable):
        size = f"{problem.length:,}" if problem.length is not None else "fewer"
        return "RangeNotSatisfiable", (
            f"The header Range is {request.headers.get('Range', '')[:80]!r}; the file has {size} bytes, numbered from 0, and "
            "one range of them can be had, for example Range: bytes=0-999. Leave the header out for all of it."
        )
    if isinstance(problem, WerkzeugUnsupportedMediaType):
        return services.UnsupportedMediaType.__name__, "The body is of a type that this route does not take; see /docs."
    if isinstance(problem, BadRequest) and request.is_json:
        return services.MalformedJson.__name__, (
            'The body is not valid JSON. Send for example {"customer_id": "12345"} in UTF-8.'
        )
    return type(problem).__name__, f"The request cannot be answered ({problem.name}); see /docs."
