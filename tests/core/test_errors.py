"""Errors know their exit code and survive worker processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from coblend.core import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_pickles_whole(cls: type[errors.CoblendError]) -> None:
    error = cls("3 pixels, expected 4", "a.fits", "IMAGE", "give another file")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "a.fits[IMAGE]: 3 pixels, expected 4\n  give another file"
    assert copy.exit_code == cls.exit_code


def test_a_block_names_the_file_it_concerns() -> None:
    """Class and hint stay; an error that names its file is left alone."""
    with (
        pytest.raises(errors.SchemaError) as found,
        errors.concerning("b.fits", "PSF"),
    ):
        raise errors.SchemaError("is newer", hint="upgrade")
    assert str(found.value) == "b.fits[PSF]: is newer\n  upgrade"
    with pytest.raises(errors.FormatError) as found, errors.concerning("b.fits", "PSF"):
        raise errors.FormatError("is empty", "a.fits")
    assert str(found.value) == "a.fits: is empty"
    with pytest.raises(KeyError), errors.concerning("b.fits"):
        raise KeyError("x")


def test_exit_codes_are_those_of_the_contract() -> None:
    codes = {c.__name__: c.exit_code for c in CLASSES}
    assert codes == {
        "CoblendError": 1, "ParameterError": 2, "PartialFailure": 3, "FormatError": 65,
        "MissingHduError": 65, "ShapeMismatchError": 65, "WcsMismatchError": 65,
        "SchemaError": 65, "CorruptFileError": 65, "FitError": 65, "InputMissingError": 66,
        "MissingExtraError": 69, "OutputError": 73, "OutputExistsError": 73, "DiskError": 74,
        "ResourceError": 75, "ConfigError": 78,
    }  # fmt: skip
