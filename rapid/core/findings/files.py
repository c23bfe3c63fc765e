"""What both commands judge: certificates, keys and configuration files, disks, and the clock of a host."""

from dataclasses import dataclass

from rapid.core.findings.base import Finding, green, red, yellow

RENEW_BEFORE_S = 30 * 86_400.0  # assumed: what a site needs to have a certificate signed anew
CLOCK_OFF_S = 1.0  # assumed: from here on, logs of two hosts cannot be laid side by side
CLOCK_WRONG_S = 60.0  # assumed: from here on, a new certificate may not have begun yet
DISK_LEAST_BYTES = 16 * 2**20  # assumed: an hour of a busy controller's journal; rapidd needs 4 KiB
GROUP_READ, GROUP_WRITE, OTHERS_WRITE, OTHERS_ANY = 0o040, 0o020, 0o002, 0o007  # permission bits


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate that was read or shown. Times are seconds from now.

    where      its file, or the address that shows it
    names      the hosts that it names
    ends_on    the day, for people
    untrusted  why the authority that is configured does not vouch for it; empty: it does
    """

    where: str
    names: tuple[str, ...]
    begins_in_s: float
    ends_in_s: float
    ends_on: str
    untrusted: str = ""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that is there, and its permission bits."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What the kernel says of its own clock; None: it does not say."""

    synchronised: bool | None
    error_s: float | None = None


def certificate_finding(facts: CertificateFacts, user: str, topic: str = "certificate") -> Finding:
    """`user` is who has to start again with a new one."""
    days = abs(facts.ends_in_s) / 86_400
    renew = f"have it signed anew, then restart {user}"
    if facts.ends_in_s <= 0:
        return red(topic, f"{facts.where} ended {days:.0f} days ago, on {facts.ends_on}", renew)
    if facts.begins_in_s > 0:
        begins = facts.begins_in_s / 3600
        return red(topic, f"{facts.where} begins in {begins:.1f} h only", "set the clock right, or wait until then")
    if facts.untrusted:
        todo = f"have it signed by the authority in tls.ca, then restart {user}"
        return red(topic, f"{facts.where}: its authority does not vouch for it ({facts.untrusted})", todo)
    if facts.ends_in_s < RENEW_BEFORE_S:
        return yellow(topic, f"{facts.where} ends in {days:.0f} days, on {facts.ends_on}", renew)
    names = f", names {', '.join(facts.names)}" if facts.names else ""
    return green(topic, f"{facts.where} holds until {facts.ends_on}{names}")


def key_finding(facts: FileFacts) -> Finding:
    """The private key: whoever reads it can speak as this host."""
    todo = f"chmod 600 {facts.path}, and have the certificate signed anew: somebody may have read the key"
    if facts.mode & OTHERS_ANY:
        return red("key", f"{facts.path} has mode {facts.mode:04o}: every user may read or change it", todo)
    if facts.mode & GROUP_WRITE:
        return red("key", f"{facts.path} has mode {facts.mode:04o}: its group may change it", todo)
    if facts.mode & GROUP_READ:
        what = f"{facts.path} has mode {facts.mode:04o}: its group may read it"
        return yellow("key", what, f"chmod 600 {facts.path}; systemd hands rapidd a copy (LoadCredential)")
    return green("key", f"{facts.path} is for its owner alone")


def config_finding(facts: FileFacts) -> Finding:
    """A configuration that is valid: whoever can write it sets budgets and fallbacks."""
    if facts.mode & OTHERS_WRITE:
        what = f"{facts.path} is valid, but has mode {facts.mode:04o}: every user may change it"
        return red("config", what, f"chmod 644 {facts.path}, and look through it")
    if facts.mode & GROUP_WRITE:
        what = f"{facts.path} is valid, but has mode {facts.mode:04o}: its group may change it"
        return yellow("config", what, f"chmod 644 {facts.path}, unless that group is to set power limits")
    return green("config", f"{facts.path} is valid")


def disk_finding(folder: str, free_bytes: int, *, lost: str) -> Finding:
    """`lost` is what cannot be done on a full disk."""
    if free_bytes < DISK_LEAST_BYTES:
        what = f"{folder} has {free_bytes / 2**20:.1f} MiB left: {lost}"
        return red("disk", what, f"free {DISK_LEAST_BYTES // 2**20} MiB or more there")
    return green("disk", f"{folder} has {free_bytes / 2**30:.1f} GiB left")


def clock_finding(facts: ClockFacts) -> Finding:
    """Leases go by a clock of their own; certificates and logs go by this one."""
    todo = "run a time service: systemctl enable --now chrony (or systemd-timesyncd)"
    if facts.synchronised is None:
        return yellow("clock", "the kernel does not say whether its clock is synchronised", "look at: timedatectl")
    if not facts.synchronised:
        return yellow("clock", "not synchronised; certificates and logs go by it, leases do not", todo)
    within = "" if facts.error_s is None else f", within {facts.error_s * 1000:.0f} ms"
    return green("clock", f"synchronised{within}")


def skew_finding(node: str, skew_s: float, doubt_s: float) -> Finding:
    """A node's clock against the controller's; the true difference lies within `doubt_s` of `skew_s`."""
    least_s = max(0.0, abs(skew_s) - doubt_s)
    ahead = "ahead of" if skew_s > 0 else "behind"
    what = f"its clock is {abs(skew_s):.1f} s {ahead} the controller's"
    todo = "run a time service on both: systemctl enable --now chrony (or systemd-timesyncd)"
    if least_s > CLOCK_WRONG_S:
        return red("clock", f"{what}; certificates may not hold yet, or no more", todo, node)
    if least_s > CLOCK_OFF_S:
        return yellow("clock", f"{what}; leases do not care, but logs cannot be compared", todo, node)
    return green("clock", f"within {CLOCK_OFF_S:g} s of the controller's", node)
