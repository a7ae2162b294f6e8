from __future__ import annotations

import pytest
import torch

from reference_kernels.kvcc.coupled_channels import UNIT, decode, decode_attention, encode, fit, unpack


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coupled(count: int, heads: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Vectors [N, Hkv, D] whose neighboring channels are nearly the same number."""
    shared = normal(count, heads, dim // 4, seed=seed).repeat_interleave(4, -1)
    return shared + 0.1 * normal(count, heads, dim, seed=seed + 1)


@pytest.mark.parametrize(("channels", "centroids"), [(2, 16), (4, 64), (8, 256)])
def test_encode_takes_the_nearest_centroid(channels: int, centroids: int, device: torch.device):
    x, book = normal(2, 2, 37, 64), normal(2, 64 // channels, centroids, channels, seed=1)
    codes = unpack(encode(x.to(device), book.to(device))).cpu().long()
    points = x.unflatten(-1, (-1, channels)).transpose(2, 3).double()  # [B, Hkv, D / c, T, c]
    distances = torch.cdist(points, book.double().expand(2, -1, -1, -1, -1))
    chosen = distances.gather(-1, codes.unsqueeze(-1)).squeeze(-1)
    assert float((chosen - distances.amin(-1)).max()) < 1e-6  # only where two are equally near may it be the other
    assert float((codes == distances.argmin(-1)).double().mean()) > 0.999


def test_lower_centroid_wins_ties(device: torch.device):
    book = torch.zeros(1, 16, 8, 4, device=device)
    book[0, :, [2, 5]] = 1.0
    codes = unpack(encode(torch.ones(1, 1, 3, 64, device=device), book))
    assert bool((codes == 2).all())
    assert bool((unpack(encode(torch.zeros(1, 1, 3, 64, device=device), book)) == 0).all())


def test_highest_code_survives_packing(device: torch.device):
    """Code 255 in the last byte makes the word negative."""
    book = torch.zeros(1, 16, 256, 4, device=device)
    book[0, :, 255] = 1.0
    words = encode(torch.ones(1, 1, 2, 64, device=device), book)
    assert bool((words == -1).all())
    assert bool((unpack(words) == 255).all())


def test_centroids_are_coded_and_restored_exactly(device: torch.device):
    book = normal(2, 16, 32, 4)
    picked = torch.randint(0, 32, (1, 2, 16, 9), generator=torch.Generator().manual_seed(0))
    vectors = book[torch.arange(2)[:, None, None], torch.arange(16)[:, None], picked].transpose(2, 3).flatten(3)
    words = encode(vectors.to(device), book.to(device))
    assert torch.equal(unpack(words).cpu().long(), picked)
    assert torch.equal(decode(words, book.to(device)).cpu(), vectors)


def test_tokens_are_coded_on_their_own(device: torch.device):
    x, book = normal(1, 1, 40, 64).to(device), normal(1, 8, 16, 8, seed=1).to(device)
    assert torch.equal(encode(x, book)[..., 33:], encode(x[:, :, 33:].contiguous(), book))


def test_fit_finds_well_separated_clusters(device: torch.device):
    centers = 10 * normal(4, 4, 4)  # 4 groups of 4 channels, 4 clusters
    label = torch.randint(0, 4, (200, 4), generator=torch.Generator().manual_seed(1))
    x = (centers[torch.arange(4), label] + 0.01 * normal(200, 4, 4, seed=2)).flatten(1)[:, None]
    book = fit(x.to(device), channels=4, centroids=4)[0].cpu()
    gap = torch.cdist(centers, book)
    assert float(gap.amin(-1).max()) < 0.02
    assert all(len(set(row.tolist())) == 4 for row in gap.argmin(-1))


def test_iterations_lower_the_error_and_coupling_pays(device: torch.device):
    """At 2 bits per number, 4 dependent channels together lose far less than 4 apart."""
    x = coupled(1500, 1, 16).to(device)

    def error(channels: int, centroids: int, iterations: int) -> float:
        book = fit(x, channels, centroids, iterations=iterations)
        restored = decode(encode(x.transpose(0, 1)[None], book), book)
        return float((restored[0, 0] - x[:, 0]).square().mean() / x.square().mean())

    together = error(4, 256, 8)
    assert together < error(4, 256, 0)
    assert together < 0.25 * error(1, 4, 8)  # each channel on its own: the 0.1175 of a scalar 2-bit code


def test_same_seed_gives_the_same_codebook(device: torch.device):
    x = normal(100, 2, 16).to(device)
    assert torch.equal(fit(x, 4, 16, seed=3), fit(x, 4, 16, seed=3))
    assert not torch.equal(fit(x, 4, 16, seed=3), fit(x, 4, 16, seed=4))


def test_empty_clusters_are_filled_and_constant_data_is_no_nan(device: torch.device):
    x = torch.zeros(64, 1, 16, device=device)  # one distinct vector for 16 centroids
    book = fit(x, 4, 16)
    assert bool((book == 0).all())
    x[:8] = 1.0
    x[0, 0] = 7.0  # a lone vector far from all others gets a centroid of its own
    book = fit(x, 4, 16)
    assert bool(torch.isfinite(book).all())
    restored = decode(encode(x.transpose(0, 1)[None], book), book)
    assert torch.equal(restored[0, 0], x[:, 0])


def test_attention_equals_dense_attention_where_every_key_is_a_centroid(device: torch.device):
    """With 16 tokens and 16 centroids nothing is lost: an oracle that knows no codes."""
    q, k, v = normal(1, 4, 64), normal(1, 1, 16, 64, seed=1), normal(1, 1, 16, 64, seed=2)
    books = [x[0, 0].unflatten(-1, (-1, 4)).transpose(0, 1)[None].contiguous().to(device) for x in (k, v)]
    words = [encode(x.to(device), book) for x, book in zip((k, v), books, strict=True)]
    lengths = torch.tensor([16], dtype=torch.int32, device=device)
    out = decode_attention(q.to(device), *words, *books, lengths)["out"].cpu()
    exact = torch.softmax(q[0] @ k[0, 0].T / 8, -1) @ v[0, 0]
    torch.testing.assert_close(out[0], exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda i: i | {"k_codes": i["k_codes"].long()}, TypeError, "k_codes must be int32"),
        (lambda i: i | {"k_codes": i["k_codes"][:, :, :1]}, ValueError, "k_codes must have shape"),
        (lambda i: i | {"v_codes": i["v_codes"][..., :4]}, ValueError, "v_codes must have shape"),
        (lambda i: i | {"v_codes": i["v_codes"].mT.contiguous().mT}, ValueError, "contiguous"),
        (lambda i: i | {"k_book": i["k_book"].half()}, TypeError, "k_book is"),
        (lambda i: i | {"v_book": i["v_book"][:, :, :8]}, ValueError, "v_book must have shape"),
        (lambda i: i | {"k_book": i["k_book"][:, :, :12]}, ValueError, "centroids must be a power of two"),
        (lambda i: i | {"lengths": i["lengths"] + 100}, ValueError, "room"),
        (lambda i: i | {"lengths": i["lengths"].long()}, TypeError, "lengths must be int32"),
        (lambda i: i | {"q": i["q"][:, :3]}, ValueError, "multiple of the key heads"),
        (lambda i: i | {"q": i["q"].repeat(1, 17, 1)[:, :34]}, ValueError, "at most 16"),
    ],
)
def test_bad_input_is_refused_with_words(change, error, words, device: torch.device):
    inputs = UNIT.make_inputs(
        device=device, dtype=torch.float32, seed=0, lengths=[9, 5], heads=2, group=2, dim=64, channels=8, centroids=16,
        calibration=16,
    )  # fmt: skip
    with pytest.raises(error, match=words):
        decode_attention(**change(inputs))


def test_fit_and_encode_refuse_what_they_cannot_do(device: torch.device):
    x = normal(20, 1, 64).to(device)
    with pytest.raises(ValueError, match="cannot be learnt from 20"):
        fit(x, 4, 32)
    for channels in (0, 3, 32):
        with pytest.raises(ValueError, match="power of two up to 16"):
            fit(x, channels, 16)
    for centroids in (1, 10, 512):
        with pytest.raises(ValueError, match="between 2 and 256"):
            fit(x, 4, centroids)
    with pytest.raises(ValueError, match="book must have shape"):
        encode(x.transpose(0, 1)[None], torch.zeros(2, 16, 16, 4, device=device))
    with pytest.raises(TypeError, match="book is"):
        encode(x.transpose(0, 1)[None], torch.zeros(1, 16, 16, 4, device=device, dtype=torch.float16))
