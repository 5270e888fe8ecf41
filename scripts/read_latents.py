"""Reads a file of `dcformer embed --data` as Python programs do, and checks that they see what it says.

python scripts/read_latents.py latents.parquet        (needs pyarrow, pandas, polars, numpy)
"""

import json
import sys

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1]
table = pq.read_table(path)
made = json.loads(table.schema.metadata[b"dcformer"])
width = made["width"]
assert table.schema.field("latent").type == pa.list_(pa.field("element", pa.float32(), nullable=False), width), table.schema
for name, kind in zip(table.schema.names, table.schema.types):
    assert name == "latent" or kind == (pa.string() if name in ("volume", "patient", "study", "split", "report") else pa.bool_()), (name, kind)
latents = table["latent"].combine_chunks().flatten().to_numpy().reshape(-1, width)
assert np.allclose(np.linalg.norm(latents, axis=1), 1, atol=1e-3)

frame = pandas.read_parquet(path)
assert np.array_equal(np.stack(frame["latent"]), latents)
assert list(frame["volume"]) == table["volume"].to_pylist()

data = polars.read_parquet(path)
assert data.schema["latent"] == polars.Array(polars.Float32, width), data.schema
assert np.array_equal(data["latent"].to_numpy(), latents)
assert data["report"].to_list() == table["report"].to_pylist()
for name in table.schema.names[6:]:
    assert data[name].to_list() == table[name].to_pylist(), name
print(f"{len(latents)} latents of {width} numbers from {made['model_sha256'][:12]}..., {len(table.schema.names) - 6} labels: "
      "pyarrow, pandas and polars agree")

# What a program selects and writes again is a file of latents still, if it is not compressed.
pq.write_table(table.slice(0, (len(latents) + 1) // 2), path + ".half", compression="none")
