"""The tensors of a legacy file: where they are, the architecture they have, and one branch of them as a model."""

import math
import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from tvae.checkpoint.pickled import Object, described, fields
from tvae.checkpoint.refusal import RefusedError, cut, quote, require_finite_weights
from tvae.checkpoint.torch_file import TorchFile, is_tensor
from tvae.config.architecture import Architecture
from tvae.errors import ArchitectureError
from tvae.model import TernaryVAE

__all__ = ["Branch", "WholeModuleError", "find_weights"]

# Where the scripts of that time put weights, at the top or within each other.
_WEIGHTS_IN = ("model_state_dict", "model_state", "model", "state_dict")
# `DataParallel` and `torch.compile` put these into names.
_WRAPPED = ("module", "_orig_mod")
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class WholeModuleError(RefusedError):
    """A pickled whole module where weights must be.

    Attributes:
        place: the expression that gives it, where `file` is what was loaded.
    """

    def __init__(self, place: str) -> None:
        super().__init__(f"The file must hold a dict of weights; `{place}` is a pickled whole module.")
        self.place = place


def find_weights(value: object) -> tuple[str, Mapping[object, object]]:
    """Return where a file has its weights, and them.

    Args:
        value: what the file's pickle says.

    Raises:
        WholeModuleError: if there is a whole module instead.
        RefusedError: if there are none, or several that differ.
    """
    found = {
        place: held
        for place, held in _places(value)
        if not _is_module(held) and any(map(is_tensor, (fields(held) or {}).values()))
    }
    if len(found) > 1:
        found.pop("", None)  # a tensor beside the weights
    if len({id(held) for held in found.values()}) > 1:
        raise RefusedError(
            f"A legacy checkpoint must hold one set of weights; found {' and '.join(f'`{place}`' for place in found)}, "
            "and nothing says which counts. Save the file again with one of them."
        )
    if found:
        place, held = next(iter(found.items()))
        tensors = fields(held) or {}
        return place, tensors if place else {name: one for name, one in tensors.items() if is_tensor(one)}
    for place, held in _places(value):
        if _is_module(held):
            raise WholeModuleError("file" + "".join(f"['{name}']" for name in place.split(".") if name))
    names = fields(value)
    if names is None:
        raise RefusedError(f"A legacy checkpoint must be a dict, found {described(value)}.")
    listed = ", ".join(f"`{name}` ({described(held)})" for name, held in names.items())
    raise RefusedError(
        f"A legacy checkpoint must hold its weights under one of {', '.join(f'`{name}`' for name in _WEIGHTS_IN)}, or "
        f"be a dict of weights itself; found {cut(listed) or 'nothing'}."
    )


def _is_module(value: object) -> bool:
    return isinstance(value, Object) and isinstance(value.state, dict) and "_parameters" in value.state


def _places(value: object) -> Iterator[tuple[str, object]]:
    """Yield the file itself, and everything in it that may be its weights, with the place."""
    yield "", value
    for outer in _WEIGHTS_IN:
        held = (fields(value) or {}).get(outer)
        yield outer, held
        for inner in _WEIGHTS_IN:
            yield f"{outer}.{inner}", (fields(held) or {}).get(inner)


class Branch:
    """One branch of the tensors of a legacy file.

    Args:
        file: where they are.
        weights: what the file holds under their names.
        name: `A` or `B`.

    Attributes:
        dual: whether each branch has a projection of its own.
        isp_c: the curvature that the projection stores, with the digits that float32 keeps; None if it stores none.

    Raises:
        RefusedError: if the file is of another layout than v5.11's, or one of its tensors cannot be read.
    """

    def __init__(self, file: TorchFile, weights: Mapping[object, object], name: str) -> None:
        self._name = name
        self._tensors = tensors = _named(file, weights)
        self.dual = any(key.startswith("projection.proj_") for key in tensors)
        projection = f"projection.proj_{name}" if self.dual else "projection"
        shared = name == "B" and any(key.startswith("projection.proj_B_radius.") for key in tensors)
        # Ours: theirs.
        self._prefixes = {
            "encoder.hidden": f"encoder_{name}.encoder",
            "encoder.mean": f"encoder_{name}.fc_mu",
            "encoder.log_variance": f"encoder_{name}.fc_logvar",
            "decoder.layers": "decoder_A.decoder",
            "projection.direction_net": f"{'projection.proj_A' if shared else projection}.direction_net",
            "projection.radius_net": "projection.proj_B_radius" if shared else f"{projection}.radius_net",
        }
        if any(key.startswith("controller.") for key in tensors):
            self._prefixes["controller.net"] = "controller.net"
        self._isp_c_name = f"{projection}.manifold.isp_c"
        self.isp_c = _isp_c(tensors.get(self._isp_c_name))

    def architecture(self, curvature: float, max_radius: float) -> Architecture:
        """Return the architecture that the tensors have.

        Args:
            curvature: of the ball.
            max_radius: largest Euclidean norm of a point.

        Raises:
            RefusedError: if points would lie outside the ball, or there is no such architecture.
        """
        unit_norm = math.sqrt(curvature) * max_radius
        if unit_norm > 1 - 1e-6:
            wider = 1.0 if max_radius < 1 - 1e-6 else float(f"{0.9 / max_radius / max_radius:.2g}")
            raise RefusedError(
                f"Every point must lie inside the ball, which at curvature {curvature:g} has the radius "
                f"{1 / math.sqrt(curvature):.4f}; the `max_radius` of {max_radius:g} puts points outside: the legacy "
                f"programme did not use the curvature. Pass curvature={wider:g} max_radius={max_radius:g} "
                f"override=true to read the same coordinates in the ball of curvature {wider:g}."
            )
        encoder = self._widths("encoder.hidden")
        decoder = self._widths("decoder.layers")
        direction = self._widths("projection.direction_net")
        try:
            return Architecture(
                n_trits=encoder[0],
                latent_dim=decoder[0],
                encoder_hidden=encoder[1:],
                decoder_hidden=decoder[1:-1],
                hidden_dim=direction[1],
                n_projection_layers=len(direction) - 2,
                curvature=curvature,
                max_radius=unit_norm,
                centred=False,
                use_controller="controller.net" in self._prefixes,
            )
        except ArchitectureError as error:
            raise RefusedError(
                f"The tensors must give an architecture that can be built; found: {cut(str(error))}"
            ) from None

    def _widths(self, ours: str) -> tuple[int, ...]:
        """Return the widths between the linear layers of a Sequential."""
        prefix = self._prefixes[ours]
        layer = re.compile(rf"{re.escape(prefix)}\.(\d{{1,4}})\.weight")
        linear = {
            int(found[1]): tensor.shape
            for name, tensor in self._tensors.items()
            if tensor.dim() == 2 and (found := layer.fullmatch(name))
        }
        if not linear:
            raise RefusedError(f"The file must have the linear layers `{prefix}.*.weight`; found none.")
        shapes = [linear[n] for n in sorted(linear)]
        return (shapes[0][1], *(n_out for n_out, _ in shapes))

    def fill(self, model: TernaryVAE) -> list[str]:
        """Give a model the branch's weights.

        Args:
            model: of the architecture that the tensors have.

        Returns:
            A sentence on the precision of the weights, where it is another than ours.

        Raises:
            RefusedError: if a tensor is missing, unknown, of another shape, or not finite.
        """
        names = self._names(model)
        self._require_exactly(names.values(), model.architecture)
        weights: dict[str, Tensor] = {}
        precisions, rounded = set(), 0.0
        for ours, expected in model.state_dict().items():
            name = names[ours]
            stored = self._tensors[name]
            if stored.shape != expected.shape:
                raise RefusedError(f"`{name}` must have the shape {list(expected.shape)}, found {list(stored.shape)}.")
            # A copy, since tensors of a file may share their bytes.
            weights[ours] = stored.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            require_finite_weights(name, weights[ours])
            precisions.add(str(stored.dtype).removeprefix("torch."))
            rounded = max(rounded, float((weights[ours].double() - stored.double()).abs().max()))
        model.load_state_dict(weights, strict=True, assign=True)
        if precisions == {"float32"}:
            return []
        exact = "exact in float32" if rounded == 0 else f"rounded to float32, by at most {rounded:.1e}"
        return [f"Weights are stored as {', '.join(sorted(precisions))}; they were {exact}."]

    def _names(self, model: TernaryVAE) -> dict[str, str]:
        """Return the legacy name of each of our tensors.

        The layers of a Sequential are counted, and where the old programme used dropout, one follows every activation
        and counts too.
        """
        names: dict[str, str] = {}
        for prefix, theirs in self._prefixes.items():
            net = model.get_submodule(prefix)
            plain = {f"{prefix}.{key}": f"{theirs}.{key}" for key in net.state_dict()}
            dropout = {f"{prefix}.{key}": f"{theirs}.{_after_dropout(net, key)}" for key in net.state_dict()}
            names |= dropout if set(dropout.values()) <= self._tensors.keys() else plain
        return names

    def _require_exactly(self, names: Collection[str], architecture: Architecture) -> None:
        other = "B" if self._name == "A" else "A"
        aside = (f"encoder_{other}.", f"projection.proj_{other}.", f"projection.proj_{other}_radius.")
        missing = sorted(set(names) - self._tensors.keys())
        unknown = sorted(
            name for name in self._tensors.keys() - set(names) - {self._isp_c_name} if not name.startswith(aside)
        )
        if missing or unknown:
            raise RefusedError(
                f"The tensors of branch {self._name} must be those of {architecture} in the layout of v5.11; "
                f"missing: {quote(missing) if missing else 'none'}; unknown: {quote(unknown) if unknown else 'none'}. "
                "Another layout is not supported."
            )


def _named(file: TorchFile, weights: Mapping[object, object]) -> dict[str, Tensor]:
    """Return the tensors by their names in the v5.11 layout."""
    values: dict[str, object] = {}
    for key, value in weights.items():
        name = _unwrapped(str(key))
        if name in values:
            raise RefusedError(
                f"Every tensor must be there once; without `module.` and `_orig_mod.`, `{cut(name)}` is there twice."
            )
        values[name] = value
    if not any(name.startswith("projection.") for name in values):
        raise RefusedError(
            "The file must have the layout of v5.11, with a hyperbolic projection; it has no projection: it is of v5.5 "
            "to v5.10, another layout that is not supported, or not whole. Its tensors' names begin with "
            f"{quote(sorted({name.partition('.')[0] for name in values}))}."
        )
    tensors: dict[str, Tensor] = {}
    for name, value in values.items():
        tensor = file.tensor(cut(name), value)
        if tensor is None or tensor.dtype not in _FLOATS:
            found = described(value) if tensor is None else tensor.dtype
            raise RefusedError(
                f"`{cut(name)}` must be a dense tensor of a floating-point type, found {found}; save it as one."
            )
        if tensor.dim() == 1 and re.fullmatch(r"(encoder_[AB]\.encoder|decoder_A\.decoder)\.\d{1,4}\.weight", name):
            raise RefusedError(
                f"The encoder and decoder must be Linear and ReLU, as in v5.11; `{name}` is of a normalisation, as in "
                "the encoders with LayerNorm and SiLU of v5.12.4. That layout is not supported."
            )
        tensors[name] = tensor
    return tensors


def _unwrapped(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPED]
    return ".".join(parts[1:] if parts[:1] == ["model"] else parts)


def _after_dropout(net: nn.Module, key: str) -> str:
    """Return the name of a tensor of a Sequential if a dropout followed every activation in it."""
    number, dot, leaf = key.partition(".")
    if not isinstance(net, nn.Sequential):
        return key
    activations = sum(isinstance(layer, nn.ReLU | nn.SiLU) for layer in list(net)[: int(number)])
    return f"{int(number) + activations}{dot}{leaf}"


def _isp_c(stored: Tensor | None) -> float | None:
    if stored is None:
        return None
    if stored.numel() != 1:
        raise RefusedError(f"`isp_c` must be one number, found shape {list(stored.shape)}.")
    curvature = float(nn.functional.softplus(stored.double()))
    return float(f"{curvature:.5g}") if math.isfinite(curvature) else None
