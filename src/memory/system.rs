//! What the machine has left of its memory, as far as it tells.

/// Bytes that this process can still take without any being taken from others; `None` where the system does not tell.
pub(super) fn available() -> Option<u64> {
    if cfg!(miri) {
        // An interpreter has no such machine.
        return None;
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = of_machine(&read("/proc/meminfo")?)?;
    let group = |name: &str| read(&format!("/sys/fs/cgroup/memory.{name}")).unwrap_or_default();
    let group = of_group(&group("max"), &group("current"), &group("stat"));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// What is available without swapping, and what can be swapped.
fn of_machine(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    kib("MemAvailable:")?
        .checked_add(kib("SwapFree:").unwrap_or(0))?
        .checked_mul(1024)
}

/// What the limit of a control group leaves; its cache of files counts as used and is given up when it is needed.
fn of_group(limit: &str, used: &str, stat: &str) -> Option<u64> {
    // A group without a limit says `max`, which is no number.
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let cached = |name: &str| {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(field, _)| *field == name)?
            .1
            .parse::<u64>()
            .ok()
    };
    let files = ["active_file", "inactive_file"]
        .into_iter()
        .filter_map(cached);
    Some(limit.saturating_sub(used.saturating_sub(files.sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_available_memory_and_free_swap() {
        let text = "MemTotal: 100 kB\nMemFree: 5 kB\nMemAvailable:   30 kB\nSwapFree: 10 kB\n";
        assert_eq!(of_machine(text), Some(40 << 10));
        assert_eq!(of_machine("MemTotal: 100 kB\n"), None);
        assert_eq!(of_machine("MemAvailable: much kB\n"), None);
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used_and_no_cache_of_files() {
        let stat = "anon 60\nfile 30\ninactive_file 20\nactive_file 5\n";
        assert_eq!(of_group("100\n", "90\n", stat), Some(35));
        assert_eq!(of_group("50\n", "90\n", stat), Some(0));
        assert_eq!(of_group("max\n", "90\n", stat), None);
        assert_eq!(of_group("", "", ""), None);
    }
}
