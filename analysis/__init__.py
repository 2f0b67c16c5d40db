"""From run folders to statistics, verdicts, figures and a report. Reads files; never runs anything.

    load.py       folders -> (Study, frame)       verdicts.py   claims -> reproduced / not / undecided
    stats.py      interquartile mean, intervals   figures/      one figure a file, discovered
    ranking.py    which combination is best       report.py     one self-contained HTML page
    wording.py    tasks or iterations of games    pooled.py     statistics over runs x games
    returns.py    returns against frames          published.py  curves of others to compare with (compare.py)

Run as `python -m analysis --help`.
"""
