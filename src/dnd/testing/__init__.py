"""For tests of the system and of the teams that call it: five fake services without any model.

    with start_fakes(folder) as fakes:
        services = Services.connect(fakes.targets, fakes.artifacts)

Their answers follow from their inputs alone, so a job on them gives the same labels every time.
`fakes.captioner.faults` makes them fail on demand.
"""

from dnd.testing.fakes import Fakes, start_fakes
from dnd.testing.faults import Faults

__all__ = ["Fakes", "Faults", "start_fakes"]
