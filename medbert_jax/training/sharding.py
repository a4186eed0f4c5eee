"""The ("data", "model") mesh and where everything lies on it."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
import optax
from annotated_types import Ge
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from medbert_jax.checked_fields import check_fields
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import vocabulary_axes


@dataclass(frozen=True)
class MeshConfig:
    """Devices along the two axes of the mesh."""

    data: Annotated[int, Ge(0)] = 0
    """Devices that share a batch; 0 takes all that `model` leaves."""
    model: Annotated[int, Ge(1)] = 1
    """Devices that share the code table and its decoder."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, at="mesh")


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices. Raises ValueError when the sizes do not multiply to the number of devices."""
    devices = jax.device_count()
    data = config.data or devices // config.model
    if data * config.model != devices:
        raise ValueError(
            f"mesh.data × mesh.model must equal the number of devices: got {data} × {config.model} and {devices}; "
            "set data to 0 and model to a divisor of the devices"
        )
    # Auto axes: under the default Explicit ones a gather from a sharded table raises.
    return jax.make_mesh((data, config.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_rows(mesh: Mesh) -> NamedSharding:
    """The first dimension, rows, over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def parameter_shardings(config: ModelConfig, mesh: Mesh) -> dict:
    """Sharding of every parameter, as they are structured: the vocabulary over "model", all else everywhere."""

    def sharding(axis: int) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "model")) if axis >= 0 else replicated(mesh)

    return jax.tree.map(sharding, vocabulary_axes(config))


def state_shardings(state_shapes: dict, optimizer: optax.GradientTransformation, parameters: dict, mesh: Mesh) -> dict:
    """Shardings of a training state: the optimizer's moments lie where their parameters lie."""
    return {
        "params": parameters,
        "opt_state": optax.tree.map_params(
            optimizer,
            lambda _, sharding: sharding,
            state_shapes["opt_state"],
            parameters,
            transform_non_params=lambda _: replicated(mesh),
        ),
        "step": replicated(mesh),
    }


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Abstract arrays that say where they lie: the target of a restore."""
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings)


def put_global(array: Shaped[np.ndarray, "*shape"] | np.generic, sharding: NamedSharding) -> Shaped[Array, "*shape"]:
    """A host array or scalar, the same in every process, as one array over the devices of all processes."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
