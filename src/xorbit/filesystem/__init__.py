"""An fsspec file system of what the network holds, so that `xorbit://NAME/PATH` can be read.

    pandas.read_parquet("xorbit://bafyb4i.../part.parquet", columns=["b"])

pandas, pyarrow, xarray, dask and whatever else reads by fsspec find it under its scheme (the entry
point `fsspec.specs`). It needs the extra `xorbit[fsspec]`. What it is made of, lowest first:
problems.py (errors as a file system raises them), blocks.py (blocks that several readers share),
reading.py (all that is read, on one event loop), line.py (the thread that this loop runs in),
file.py (open files), system.py (what fsspec asks for).
"""

from xorbit.filesystem.file import AsyncXorbitFile as AsyncXorbitFile
from xorbit.filesystem.file import XorbitFile as XorbitFile
from xorbit.filesystem.system import XorbitFileSystem as XorbitFileSystem
