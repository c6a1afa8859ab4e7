"""Which of PyTorch's operations cannot be said here, and where the two differ, with the reason."""

# What neither NumPy nor we have under any name.
MISSING = {
    "complex numbers: tensors hold real ones": """
        view_as_complex complex polar cdouble cfloat chalf stft linalg.eig linalg.eigvals
        fft.fft fft.fft2 fft.fftn fft.hfft fft.hfft2 fft.hfftn fft.rfft fft.rfft2 fft.rfftn
        fft.ifft fft.ifft2 fft.ifftn fft.ihfft fft.ihfft2 fft.ihfftn fft.irfft fft.irfft2
        fft.irfftn""",
    "special functions, which SciPy has": """
        i0 mvlgamma polygamma digamma erfinv lgamma special.i0e special.i1 special.i1e
        special.polygamma special.ndtri special.log_ndtr special.erfcx""",
    "convolution, pooling and images": """
        nn.functional.adaptive_avg_pool1d nn.functional.adaptive_avg_pool2d
        nn.functional.adaptive_avg_pool3d nn.functional.adaptive_max_pool1d
        nn.functional.adaptive_max_pool2d nn.functional.adaptive_max_pool3d
        nn.functional.avg_pool1d nn.functional.avg_pool2d nn.functional.avg_pool3d
        nn.functional.conv1d nn.functional.conv2d nn.functional.conv3d
        nn.functional.conv_transpose1d nn.functional.conv_transpose2d
        nn.functional.conv_transpose3d nn.functional.fractional_max_pool2d
        nn.functional.fractional_max_pool3d nn.functional.local_response_norm
        nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d
        max_pool2d_with_indices_backward nn.functional.max_unpool1d nn.functional.max_unpool2d
        nn.functional.max_unpool3d nn.functional.unfold nn.functional.interpolate
        nn.functional.upsample_bilinear nn.functional.upsample_nearest _upsample_bilinear2d_aa
        nn.functional.grid_sample grid_sampler_2d grid_sampler_3d""",
    "draws random numbers, or is about dropping": """
        normal bernoulli nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d
        nn.functional.alpha_dropout nn.functional.feature_alpha_dropout native_dropout_backward
        nn.functional.rrelu nn.functional.multi_head_attention_forward svd_lowrank
        pca_lowrank""",
    "factors of a matrix that NumPy does not give, and its exponential": """
        lu lu_unpack lu_solve linalg.lu linalg.lu_factor linalg.lu_factor_ex linalg.lu_solve
        linalg.householder_product ormqr matrix_exp""",
    "running and scattered extremes and products": """
        cummax cummin logcumsumexp index_reduce scatter_reduce _segment_reduce""",
    "torch.masked: reductions with a mask, of which a result may be masked too": """
        masked.sum masked.prod masked.cumsum masked.cumprod masked.amax masked.amin masked.mean
        masked.median masked.norm masked.var masked.std masked.softmax masked.log_softmax
        masked.softmin masked.normalize masked.logaddexp masked.logsumexp""",
    "sparse tensors": "sparse.sampled_addmm sparse.mm to_sparse nn.functional.embedding_bag",
    "losses of other fields": """
        nn.functional.multi_margin_loss nn.functional.multilabel_margin_loss
        nn.functional.ctc_loss""",
    "PyTorch's inner forms of other entries": """
        _softmax_backward_data native_group_norm native_layer_norm native_batch_norm
        _native_batch_norm_legit _batch_norm_with_update torch.ops.aten._safe_softmax.default
        _unsafe_masked_index _unsafe_masked_index_put_accumulate as_strided|partial_views
        nn.functional.linear_cross_entropy|chunked nn.functional.linear_cross_entropy|chunked_none
        """,
    "no derivative of use: NumPy has frexp and nextafter, but not mode": "frexp nextafter mode",
    "bfloat16 is no dtype of NumPy itself": "bfloat16",
}

# Where samples of an entry differ on purpose: in what, and why.
TRIANGLE = "PyTorch gives a gradient to the triangle that is not read"
DIFFERENCES = {
    "__rpow__": (
        "first gradient",
        "the gradient for the exponent is 0 where the base is not above 0, PyTorch's is NaN",
    ),
    "as_strided_scatter": ("first gradient", "PyTorch's is not 0 for what was overwritten"),
    "cholesky_inverse": ("first gradient", TRIANGLE),
    "cholesky_solve": ("first gradient", TRIANGLE),
    "linalg.norm|subgradients_at_zero": (
        "second gradient",
        "it does not exist there: ours is 0, PyTorch's NaN for most orders",
    ),
    "nn.functional.scaled_dot_product_attention": (
        "raises",
        "a mask that needs a gradient is refused",
    ),
}

# Where the last digits differ more than elsewhere: a factor for the tolerance, and why.
ROOM = {
    "nn.functional.hardsigmoid": (1e3, "PyTorch's derivative is 1/6 in float32"),
}


def reason_missing(name: str) -> str | None:
    """Why an entry cannot be said, or None; `name` may end with a variant: "lu" or "norm|nuc"."""
    for reason, names in MISSING.items():
        if {name, name.partition("|")[0]} & set(names.split()):
            return reason
    return None
