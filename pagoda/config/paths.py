"""Where every artifact of an experiment lives. The same layout is declared in ``dvc.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pagoda.config import Config, VariantConfig


@dataclass(frozen=True)
class Paths:
    """Folders of one experiment, relative to the folder of ``params.yaml``.

    What does not depend on the base resolution (images, feature network, reference statistics) is
    shared by all base resolutions of a profile. A variant of a study keeps what it makes itself in
    a folder of its own and reads the rest where the main pipeline left it.
    """

    config: Config

    @property
    def shared(self) -> Path:
        """Folder of what every base resolution shares."""
        return Path("runs") / self.config.name

    @property
    def base(self) -> Path:
        """Folder of this base resolution."""
        return self.shared / f"b{self.config.base_res}"

    def _place(self, key: str, usual: Path) -> Path:
        places = self.config.places if isinstance(self.config, VariantConfig) else {}
        return Path(places[key]) if key in places else usual

    def data(self, resolution: int) -> Path:
        """Images at one resolution."""
        return self.shared / "data" / str(resolution)

    @property
    def features(self) -> Path:
        """The embedded feature network."""
        return self.shared / "features"

    def reference(self, resolution: int, extractor: str = "classifier") -> Path:
        """Statistics of real images at one resolution, in the features of one extractor."""
        return self.shared / "reference" / str(resolution) / extractor

    @property
    def autoencoder(self) -> Path:
        """The autoencoder of a latent-space experiment."""
        return self._place("autoencoder", self.base / "autoencoder")

    def codes(self, resolution: int) -> Path:
        """Its codes of the images at one resolution."""
        return self._place(f"codes/{resolution}", self.base / "codes" / str(resolution))

    @property
    def clip(self) -> Path:
        """The CLIP that reads the captions of an experiment with text."""
        return self._place("clip", self.base / "clip")

    @property
    def scorer(self) -> Path:
        """The CLIP that scores samples, which nothing is trained by."""
        return self._place("scorer", self.base / "scorer")

    def captioned(self, resolution: int) -> Path:
        """The images at one resolution with captions for labels."""
        return self._place(f"captioned/{resolution}", self.base / "captioned" / str(resolution))

    @property
    def teacher(self) -> Path:
        """The diffusion teacher."""
        return self._place("teacher", self.base / "teacher")

    @property
    def latents(self) -> Path:
        """Inverted latents of real images."""
        return self._place("latents", self.base / "latents")

    def generator(self, resolution: int) -> Path:
        """The one-step generator that ends at one resolution."""
        return self._place(f"gen/{resolution}", self.base / "gen" / str(resolution))

    def evaluation(self, resolution: int) -> Path:
        """Results and sample grids at one resolution."""
        return self.base / "evaluate" / str(resolution)

    def history(self, stage: str) -> Path:
        """Training curves of one stage."""
        root = self.shared if stage == "features" else self.base
        return self._place("history", root / "history") / f"{stage}.jsonl"

    def system(self, stage: str) -> Path:
        """What one stage took of its machine; beside its history, and no result."""
        history = self.history(stage)
        return history.parent.with_name("system") / history.name

    def super_resolver(self, resolution: int) -> Path:
        """The cascade's model that ends at one resolution; only studies train it."""
        return self._place(f"sr/{resolution}", self.base / "sr" / str(resolution))

    @property
    def report(self) -> Path:
        """Where the report is written."""
        return Path("reports") / self.config.name / f"b{self.config.base_res}"
