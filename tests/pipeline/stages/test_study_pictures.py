"""What the picture of the same latents shows, and by which label."""

from __future__ import annotations

from pagoda.pipeline.stages.study import blocks_of


def test_no_two_rows_of_the_picture_have_one_label() -> None:
    grids = ["samples-grown-32", "samples-upsampled_base-32", "samples-teacher-8",
             "samples-student-8", "samples-grown-16", "samples-upsampled_base-16",
             "samples-student_two_steps-8", "samples-best_of_4-8"]  # fmt: skip
    found = blocks_of("Few pairs", grids)
    rows = [(label, name.rpartition("-")[2]) for label, names in found.items() for name in names]
    assert len(set(rows)) == len(rows) == len(grids)
    assert found == {
        "Few pairs": ["samples-student-8", "samples-grown-16", "samples-grown-32"],
        "Few pairs: best of 4": ["samples-best_of_4-8"],
        "Few pairs: student, two steps": ["samples-student_two_steps-8"],
        "Few pairs: bilinear upsampling": ["samples-upsampled_base-16",
                                           "samples-upsampled_base-32"],
        "Few pairs: teacher": ["samples-teacher-8"],
    }  # fmt: skip


def test_a_cascade_has_the_stage_below_in_its_block_and_one_grid_is_not_shown() -> None:
    assert blocks_of("Cascade", ["samples-cascade-16", "below-8"]) == {
        "Cascade": ["below-8", "samples-cascade-16"]
    }
    assert blocks_of("Alone", ["samples-student-8"]) == {}
