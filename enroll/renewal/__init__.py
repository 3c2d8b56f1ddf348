"""When certificates are renewed, and when that is tried again: what the timer goes by.

| module        | says                                                                                          |
|---------------|-----------------------------------------------------------------------------------------------|
| `due.py`      | from when on a certificate is to be renewed, by its lifetime or by its CA                     |
| `spread.py`   | what is this scanner's own: so that a thousand scanners do not ask their CA at the same moment |
| `window.py`   | the hours in which the hospital wants renewals                                                |
| `ladder.py`   | when to try again after failures: there is no last time                                       |
| `silence.py`  | which servers give no answer, and when they are asked again                                   |
| `alarms.py`   | when people are told that a certificate ends soon                                             |
| `decision.py` | all of that together: renew now, or wait until when and why                                   |

All but `silence.py` and the record of `alarms.py` are pure functions, and take the time as an argument.
"""
