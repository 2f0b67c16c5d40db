"""From run folders to statistics, verdicts, figures and a report. Reads files; never runs anything.

    load.py       folders -> (Study, frame)       verdicts.py   claims -> reproduced / not / undecided
    stats.py      interquartile mean, intervals   figures/      one figure a file, discovered
    ranking.py    which combination is best       report.py     one self-contained HTML page

Run as `python -m analysis --help`.
"""
