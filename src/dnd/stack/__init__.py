"""The local stack: all processes of the system on this machine, on loopback."""

from dnd.stack.backup import Backup, back_up
from dnd.stack.config import StackConfig, default_yaml, load_config
from dnd.stack.health import Health, Member, dead_members, describe_death, inspect
from dnd.stack.home import Home, default_home
from dnd.stack.stack import repair, running_server, start, stop, web_address

__all__ = [
    "Backup",
    "Health",
    "Home",
    "Member",
    "StackConfig",
    "back_up",
    "dead_members",
    "default_home",
    "default_yaml",
    "describe_death",
    "inspect",
    "load_config",
    "repair",
    "running_server",
    "start",
    "stop",
    "web_address",
]
