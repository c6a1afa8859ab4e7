import pytest

pytest.importorskip("torch", reason="PyTorch is what these tables compare with")
