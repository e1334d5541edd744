"""What this process takes as a model beyond its SHA-256: which scikit-learn made it, and who signed it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
import sklearn

from shared.manifest import Manifest
from shared.settings import Settings

#: Name of a signature beside the manifest.
SIGNATURE_FILE = "model.sig"


class Distrusted(ValueError):
    """A version is not taken; the message says why and what is expected."""


class Trust(msgspec.Struct, frozen=True):
    """What is allowed.

    Parameters
    ----------
    scikit_learn : tuple of str
        Minor versions (``1.7``) beside the installed one whose models are loaded.
    signing_key : str
        Path of the public key whose signature a version must have; empty: none is asked for.
    """

    scikit_learn: tuple[str, ...] = ()
    signing_key: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take what the settings say."""
        allowed = tuple(filter(None, (part.strip() for part in settings.other_scikit_learn.split(","))))
        return cls(allowed, str(settings.model_signing_key or ""))

    def check_library(self, manifest: Manifest) -> None:
        """See that the model's scikit-learn is this one, or an allowed one.

        A patch release keeps the form of a fitted model; anything more may predict something else, silently.

        Raises
        ------
        Distrusted
            It is not.
        """
        trained = manifest.libraries.get("scikit-learn")
        if manifest.format == "onnx" or manifest.other_scikit_learn:
            return
        minor = _cut_patch(trained or "")
        if minor != _cut_patch(sklearn.__version__) and minor not in self.scikit_learn:
            raise Distrusted(
                f"it was made with scikit-learn {trained or 'unknown'} and this worker has {sklearn.__version__}; train"
                f" it again, install that version, or allow it (SCOREQUEUE_OTHER_SCIKIT_LEARN={minor or '1.7'})"
            )

    def check_signature(self, files: Mapping[str, bytes], signature: bytes | None) -> None:
        """See that somebody with the right key has signed exactly these bytes.

        Parameters
        ----------
        files : mapping of str to bytes
            All files of the version but the signature, as they were read: what is verified is what is loaded.
        signature : bytes or None
            None: there is none.

        Raises
        ------
        Distrusted
            The signature is missing, of another key, or of other bytes; or it cannot be verified here.
        """
        if not self.signing_key:
            return
        if signature is None:
            raise Distrusted(f"it is not signed ({SIGNATURE_FILE} is missing) and SCOREQUEUE_MODEL_SIGNING_KEY is set")
        try:
            from model_signing import verifying
        except ModuleNotFoundError:
            raise Distrusted(
                "signatures are verified by model-signing, which is not installed: pip install 'scorequeue[signing]'"
            ) from None
        with tempfile.TemporaryDirectory(prefix="scorequeue-verify-") as folder:
            version, bundle = _lay_out(Path(folder), files)
            bundle.write_bytes(signature)
            try:
                verifier = verifying.Config()  # type: ignore[no-untyped-call]
                verifier.use_elliptic_key_verifier(public_key=Path(self.signing_key)).verify(version, bundle)
            except Exception as error:  # each library below it has its own
                raise Distrusted(
                    f"its signature is not one of the key {Path(self.signing_key).name} over these bytes"
                    f" ({type(error).__name__})"
                ) from error


def sign_files(files: Mapping[str, bytes], private_key: Path) -> bytes:
    """Sign the files of a version; return the content of its `SIGNATURE_FILE`.

    Raises
    ------
    Distrusted
        model-signing is not installed, or the key is none.
    """
    try:
        from model_signing import signing
    except ModuleNotFoundError:
        raise Distrusted("signing needs model-signing: pip install 'scorequeue[signing]'") from None
    with tempfile.TemporaryDirectory(prefix="scorequeue-sign-") as folder:
        version, bundle = _lay_out(Path(folder), files)
        try:
            signer = signing.Config()  # type: ignore[no-untyped-call]
            signer.use_elliptic_key_signer(private_key=private_key).sign(version, bundle)
        except (ValueError, TypeError) as error:
            raise Distrusted(f"{private_key.name} cannot sign: {error}") from error
        return bundle.read_bytes()


def _lay_out(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, Path]:
    """Write files into a folder of a version; return it, and where its signature is to be."""
    version = folder / "version"
    version.mkdir()
    for name, content in files.items():
        (version / name).write_bytes(content)
    return version, folder / SIGNATURE_FILE


def _cut_patch(version: str) -> str:
    return ".".join(version.split(".")[:2])
