"""Model files of the Rubin pipelines (scarlet lite, meas_extensions_scarlet).

Two layouts: a zip with one JSON member per parent (since 2025), and one JSON document. Neither
holds the pixel grid, units or noise, so the models that come from here have an empty grid box,
no unit and unknown noise; old documents hold no footprints either, then the blend's box is used.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coblend.core.box import Box
from coblend.core.errors import CorruptFileError, FormatError, InputMissingError
from coblend.core.model import CUBE, FACTORIZED, MODEL_PSF_SIGMA, ModelSet
from coblend.io.deblend.models import SCHEMA, ModelFile, write_models
from coblend.io.deblend.nested import (
    NestedBlend,
    NestedComponent,
    NestedObject,
    NestedParent,
    flatten,
)
from coblend.io.fits.temporary import scratch_folder
from coblend.io.fits.writer import create

_ZIP, _JSON = b"PK\x03\x04", b"{"
_NOT_PARENTS = ("metadata", "version", "model_type")


def is_lsst_models(path: str) -> bool:
    """Whether a file starts like a zip or a JSON document."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(64).lstrip()
    except OSError:
        return False
    return start.startswith((_ZIP, _JSON))


@contextmanager
def open_models(path: str) -> Iterator[ModelFile]:
    """Open models for random access: a file of ours, or a temporary one of theirs.

    Models of the Rubin pipelines have no grid: ``box`` of the file is empty.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
    """
    if not is_lsst_models(path):
        with ModelFile(path) as models:
            yield models
        return
    with scratch_folder() as folder:
        converted = os.path.join(folder, os.path.basename(path))
        with create(converted, SCHEMA) as out:
            write_models(out, read_lsst_models(path))
        with ModelFile(converted) as models:
            yield models


def read_lsst_models(path: str) -> ModelSet:
    """Read a model file of the Rubin pipelines.

    Parameters
    ----------
    path : str
        ``.scarlet`` zip, or JSON.

    Returns
    -------
    ModelSet
        ``box`` is empty (the file does not say what grid it is on), ``kernel_reg`` 0 (the
        reference's plain ratio), noise NaN. A null source stands at the centre of its blend.

    Raises
    ------
    InputMissingError, FormatError, CorruptFileError
    """
    try:
        metadata, members = _zip(path) if zipfile.is_zipfile(path) else _document(path)
        model = _Reader(path, _metadata(metadata))
        parents = [model.parent(int(key), value) for key, value in members]
        return model.assemble(parents)
    except FileNotFoundError as error:
        raise InputMissingError("no such file", path) from error
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, EOFError) as error:
        raise CorruptFileError(f"not a whole model file: {error}", path) from error
    except KeyError as error:
        raise FormatError(f"not a model file of the Rubin pipelines: no {error}", path) from error
    except (ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"not a model file of the Rubin pipelines: {error}", path) from error


Members = Iterator[tuple[str, Mapping[str, Any]]]


def _zip(path: str) -> tuple[Mapping[str, Any], Members]:
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata"))
        names = [n for n in archive.namelist() if n not in _NOT_PARENTS]

    def members() -> Members:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                yield name, json.loads(archive.read(name))

    return metadata or {}, members()


def _document(path: str) -> tuple[Mapping[str, Any], Members]:
    with open(path, encoding="utf-8") as stream:
        data = json.load(stream)
    metadata = dict(data.get("metadata") or {})
    if "psfShape" in data:  # before metadata
        metadata |= {"model_psf": data["psf"], "model_psf_shape": data["psfShape"]}
        metadata["array_keys"] = ["model_psf"]
    isolated = data.get("isolated", {})
    members = [*data["blends"].items(), *isolated.items()]
    return metadata, iter(members)


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with its arrays in shape."""
    out = dict(metadata)
    for key in metadata.get("array_keys", ()):
        shape = metadata.get(f"{key}_shape", metadata.get(f"{key}Shape"))
        dtype = metadata.get(f"{key}_dtype", "float32")
        values = [v == "True" if isinstance(v, str) else v for v in metadata[key]]
        out[key] = np.array(values, dtype).reshape(shape)
    return out


class _Reader:
    """Turns the members of one file into parents; collects bands and PSFs on the way."""

    def __init__(self, path: str, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.bands: tuple[str, ...] = tuple(metadata.get("bands") or ())
        self.model_psf: NDArray[Any] | None = metadata.get("model_psf")
        self._psf: NDArray[Any] | None = metadata.get("psf")
        self._psfs: list[NDArray[Any]] = []
        self._places: list[tuple[float, float]] = []

    def parent(self, identifier: int, data: Mapping[str, Any]) -> NestedParent:
        """Read one member: an isolated source, a blend, or blends of one parent."""
        if data.get("source_type") == "isolated" or "span_array" in data:
            y0, x0 = _pair(data, "origin", "xy0")
            mask = np.array(data["span_array"], float).reshape(data["shape"]) > 0
            one = NestedObject(identifier, _rounded(data["peak"]), flags=("isolated",))
            return NestedParent(identifier, y0, x0, mask, objects=[one], flags=("isolated",))
        metadata = _metadata(data.get("metadata") or {})
        blends = [self.blend(key, blend, metadata) for key, blend in _blends(identifier, data)]
        if "spans" in metadata:
            y0, x0 = (int(v) for v in metadata["origin"])
            return NestedParent(identifier, y0, x0, metadata["spans"].astype(bool), blends)
        box = Box.union(blend.box for blend in blends)
        return NestedParent(identifier, box.y0, box.x0, np.ones(box.shape, bool), blends)

    def blend(
        self, identifier: int, data: Mapping[str, Any], around: Mapping[str, Any]
    ) -> NestedBlend:
        """Read one blend; ``around`` is the metadata of its parent."""
        metadata = {**around, **_metadata(data.get("metadata") or {})}
        if "psf_shape" in data:  # before metadata
            metadata["psf"] = np.array(data["psf"], np.float32).reshape(data["psf_shape"])
        bands = tuple(data.get("bands") or metadata.get("bands") or self.bands)
        self.bands = self.bands or bands
        if bands != self.bands:
            raise FormatError(
                f"blend {identifier} has bands {','.join(bands)}, others {','.join(self.bands)}",
                self.path,
            )
        origin, shape = _pair(data, "origin", "xy0"), _pair(data, "shape", "extent")
        box = Box(*origin, *shape)
        place = data.get("psf_center", (box.x0 + box.nx / 2, box.y0 + box.ny / 2))
        cell = self._cell(metadata.get("psf"), (float(place[1]), float(place[0])), identifier)
        objects = [
            self.source(key, source, box, identifier) for key, source in data["sources"].items()
        ]
        return NestedBlend(identifier, box, objects, cell)

    def source(self, key: str, data: Mapping[str, Any], box: Box, blend: int) -> NestedObject:
        """Read one source with its components."""
        parts = [*data.get("components", ()), *data.get("factorized", ())]
        components = [self.component(part, blend) for part in parts]
        metadata = data.get("metadata") or {}
        middle = (box.y0 + box.ny // 2, box.x0 + box.nx // 2)
        return NestedObject(
            int(metadata.get("id", key)),
            components[0].peak if components else middle,
            components,
            int(metadata.get("peak_id", data.get("peak_id", 0)) or 0),
            () if components else ("null",),
        )

    def component(self, data: Mapping[str, Any], blend: int) -> NestedComponent:
        """Read one component, factorised or a cube."""
        y0, x0 = _pair(data, "origin", "xy0")
        n_band = len(self.bands)
        if "spectrum" in data:
            kind, spectrum = FACTORIZED, np.array(data["spectrum"], np.float32)
            values = data["morph"]
            shape: tuple[int, ...] = _pair(data, "shape", "extent")
        else:
            kind, spectrum = CUBE, np.ones(n_band, np.float32)
            values, shape = data["model"], (-1, *_pair(data, "shape", "extent"))
        morph: NDArray[Any] = np.array(values, np.float32).reshape(shape)
        n_own = len(morph) if kind == CUBE else len(spectrum)
        if n_own != n_band:
            raise FormatError(
                f"blend {blend}: a component has {n_own} bands, expected {n_band}", self.path
            )
        peak = _rounded(data.get("peak") or data["center"])
        box = Box(y0, x0, *morph.shape[-2:])
        swapped = Box(peak[1], peak[0], 1, 1)
        if not box.contains(Box(*peak, 1, 1)) and box.contains(swapped):
            peak = peak[::-1]  # some cubes hold x, y
        return NestedComponent(y0, x0, morph, spectrum, peak, kind)

    def assemble(self, parents: Sequence[NestedParent]) -> ModelSet:
        """Flat tables of all parents."""
        if not self._psfs:
            self._psfs, self._places = [np.ones((max(len(self.bands), 1), 1, 1))], [(0.0, 0.0)]
        side = max(max(psf.shape[-2:]) for psf in self._psfs)
        psfs = np.stack([_padded(psf, side) for psf in self._psfs])
        sigma = MODEL_PSF_SIGMA if self.model_psf is None else _width(self.model_psf)
        return flatten(
            sorted(parents, key=lambda parent: parent.id),
            self.bands,
            psfs,
            np.array(self._places),
            Box(0, 0, 0, 0),
            kernel_reg=0.0,
            model_psf_sigma=sigma,
            meta={"IMPORTED": "lsst"},
        )

    def _cell(self, psf: NDArray[Any] | None, place: tuple[float, float], blend: int) -> int:
        """Row of a PSF; the PSF of the whole file is kept once."""
        psf = self._psf if psf is None else psf
        if psf is None:
            raise FormatError(f"blend {blend} has no PSF", self.path)
        for row, known in enumerate(self._psfs):
            if known is psf:
                return row
        self._psfs.append(psf)
        self._places.append(place)
        return len(self._psfs) - 1


def _blends(identifier: int, data: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Blends of a member, however deeply they are nested, with their ids."""
    if "children" not in data:
        yield identifier, data
        return
    for key, child in data["children"].items():
        yield from _blends(int(key), child)


def _pair(data: Mapping[str, Any], key: str, old: str) -> tuple[int, int]:
    """``(y, x)`` of an origin or shape; ``old`` is its former name, in x, y order."""
    values = data[key][-2:] if key in data else data[old][:2][::-1]
    return int(values[0]), int(values[1])


def _rounded(peak: Sequence[float]) -> tuple[int, int]:
    return math.floor(peak[0] + 0.5), math.floor(peak[1] + 0.5)


def _padded(psf: NDArray[Any], side: int) -> NDArray[Any]:
    """PSFs on odd square stamps of a common side."""
    side += 1 - side % 2
    room = [side - n for n in psf.shape[-2:]]
    return np.pad(psf, [(0, 0), *((n // 2, n - n // 2) for n in room)])


def _width(model_psf: NDArray[Any]) -> float:
    """Width of a pixel-integrated circular Gaussian, from its second moment (pixel)."""
    n = model_psf.shape[-1]
    profile = np.asarray(model_psf, float).reshape(-1, n).sum(axis=0)
    profile /= profile.sum()
    x = np.arange(n) - n // 2
    variance = float(profile @ x**2) - 1 / 12
    return round(math.sqrt(max(variance, 0.01)), 4)
