"""Tables, curves, sample sheets and one HTML page from an experiment's artifacts. No torch here.

:mod:`experiment` reads, :mod:`results`, :mod:`verdicts`, :mod:`curves` and :mod:`sheets` make the
parts, :mod:`document` holds them as plain blocks, :mod:`markdown` and :mod:`page` print the blocks.
"""
