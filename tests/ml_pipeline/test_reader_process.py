import errno

import pytest

from ml_pipeline.reader_process import _named


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_what_is_wrong_with_the_machine_is_not_said_of_the_file(number):
    with pytest.raises(OSError, match="what the system says") as caught:
        raise OSError(number, "what the system says")
    assert list(_named(caught.value, 1)) == ["fault"]


def test_what_a_reader_says_of_a_damaged_file_is_said_of_it():
    with pytest.raises(OSError, match="no errno") as caught:
        raise OSError("no errno")
    assert _named(caught.value, 1)["error"] == "DamagedFile"
