"""gte_np on a cluster: with Ray Data, and for what else maps batches with a class.

`Embedder` is a plain class, and needs no Ray. `embed_dataset`, and `run_on_ray` behind `gte-np embed --ray`, do a job
of `gte_np.jobs` with the actors of Ray Data. Ray is imported when a job begins.
"""

from gte_np.ray.cluster import Cluster, run_on_ray
from gte_np.ray.dataset import embed_dataset
from gte_np.ray.embedder import Embedder

__all__ = ["Cluster", "Embedder", "embed_dataset", "run_on_ray"]
