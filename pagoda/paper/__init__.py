"""The paper's tables, figures and claims, from published figures and from results of many runs.

:mod:`published` and :mod:`runs` read, :mod:`tables`, :mod:`study_tables`, :mod:`figures`,
:mod:`claims` and :mod:`ledger` make the parts, :mod:`suite` puts them on one page. A single
experiment's report is :mod:`pagoda.report`.
"""
