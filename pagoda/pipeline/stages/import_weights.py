"""``pagoda import``: released weights to an artifact."""

from __future__ import annotations

from pathlib import Path

from pagoda import artifacts
from pagoda.weights.converted import Options
from pagoda.weights.read import read_weights


def run(file: Path, out: Path, options: Options) -> list[str]:
    """Write the artifact ``out`` from the weights in ``file``; returns what to tell the user.

    Raises:
        PagodaError: one line if ``out`` holds anything else than such an artifact, or the file is
            unsafe, unknown, or no network of ours.
    """
    artifacts.check_out(out, *((options.kind,) if options.kind else ("teacher", "generator")))
    made = read_weights(file, options)
    spec, found = made.found.spec, made.found
    source = {
        "file": file.name,
        "sha256": artifacts.sha256(file),
        "format": found.format,
        "unused": list(made.unused),
    }
    card = {**made.module.card(), "images_seen": 0, "imported": source}  # type: ignore[operator]
    with artifacts.create(out, made.kind, config={"imported": file.name}) as folder:
        artifacts.save_model(folder, made.module, card)
    side = spec.resolution << len(found.levels)
    size = sum(p.numel() for p in made.module.parameters()) / 1e6
    lines = [
        f"{out}: {made.kind}, {side}x{side}, {spec.num_classes} classes, {size:.2f} M parameters",
        f"  from {file.name}, sha256 {source['sha256']}",
        f"  U-Net at {spec.resolution}: {spec.channels} channels x {list(spec.channel_mult)}, "
        f"{spec.blocks} blocks a level, attention at {list(spec.attention)}, "
        f"{spec.head_channels} channels a head",
    ]
    if found.format == "adm":
        lines.append("  not in the file, so from the options: resolution, channels a head")
    lines += [f"  doubling to {spec.resolution << i + 1}: {channels} channels, {blocks + 1} blocks"
              for i, (channels, blocks) in enumerate(found.levels)]  # fmt: skip
    lines.append(f"  {made.read} weights read, {len(made.unused)} unused")
    return lines + [f"  unused: {name}" for name in made.unused]
