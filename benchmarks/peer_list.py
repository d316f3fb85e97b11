"""Every peer, rules first: the rows of the tables in their order."""

from benchmarks.peer_bg_nbd import BG_NBD
from benchmarks.peer_learners import LEARNERS
from benchmarks.peer_zero_inflated_log_normal import ZERO_INFLATED_LOG_NORMAL
from benchmarks.peers import RULES, Peer

PEERS: tuple[Peer, ...] = (*RULES, *LEARNERS, ZERO_INFLATED_LOG_NORMAL, *BG_NBD)
