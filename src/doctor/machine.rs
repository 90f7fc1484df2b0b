//! The CPU and the memory, as Linux describes them in /proc and /sys.

use std::path::Path;

use serde::Serialize;

/// The CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// The name, such as `AMD EPYC 9B14`; empty if the system does not say.
    pub model: String,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// The instruction sets of this CPU that ONNX Runtime's fast kernels use.
    pub instructions: Vec<String>,
}

/// Names in /proc/cpuinfo, for x86 and for ARM.
const INSTRUCTIONS: [&str; 8] =
    ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"];

impl Cpu {
    /// Examines the CPU of this machine.
    pub fn look() -> Cpu {
        parse_cpu(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }
}

fn parse_cpu(text: &str) -> Cpu {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| name.trim() == key);
        found.map_or("", |(_, value)| value.trim())
    };
    let flags = format!("{} {}", value("flags"), value("Features"));
    let has = |name: &&&str| flags.split(' ').any(|flag| flag == **name);
    Cpu {
        model: value("model name").into(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        instructions: INSTRUCTIONS.iter().filter(has).map(ToString::to_string).collect(),
    }
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The total size; 0 if the system does not say.
    pub total_bytes: u64,
    /// The amount that could be allocated now.
    pub available_bytes: u64,
    /// The limit of this process's control group, if it has one; exceeding it kills the process.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// Examines the memory of this machine.
    pub fn look() -> Memory {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mut memory = parse_memory(&read("/proc/meminfo"));
        let group = read("/proc/self/cgroup");
        memory.limit_bytes = group_limit(Path::new("/sys/fs/cgroup"), &group)
            .filter(|limit| *limit < memory.total_bytes);
        memory
    }
}

fn parse_memory(text: &str) -> Memory {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    Memory {
        total_bytes: bytes("MemTotal:"),
        available_bytes: bytes("MemAvailable:"),
        limit_bytes: None,
    }
}

/// Returns the smallest limit of a control group and the groups around it. `own` is /proc/self/cgroup, with lines of
/// `number:controllers:path`; the number 0 is that of version 2.
fn group_limit(root: &Path, own: &str) -> Option<u64> {
    let limits = own.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers) = (fields.next(), fields.next().unwrap_or_default());
        let path = fields.next().unwrap_or_default().trim_start_matches('/');
        let (base, file) = match number {
            Some("0") => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let folder = base.join(path);
        let around = folder.ancestors().take_while(|folder| folder.starts_with(&base));
        let limit = |folder: &Path| -> Option<u64> {
            std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
        };
        around.filter_map(limit).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_known_by_its_name_and_its_instructions() {
        let cpu = parse_cpu(
            "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu avx2 fma avx512f avx512_vnni avx2x\n\nprocessor\t: 1\n",
        );
        assert_eq!(cpu.model, "AMD EPYC 9B14");
        assert_eq!(cpu.instructions, ["avx2", "fma", "avx512f", "avx512_vnni"]);
        assert!(parse_cpu("").instructions.is_empty());
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        let memory =
            parse_memory("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n");
        assert_eq!((memory.total_bytes, memory.available_bytes), (1_024_000, 614_400));
    }

    #[test]
    fn the_smallest_limit_around_a_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), None);
        std::fs::write(root.path().join("a/memory.max"), "2048\n").unwrap();
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), Some(2048));
        let first = root.path().join("memory/c");
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("memory.limit_in_bytes"), "512\n").unwrap();
        let own = "4:cpu,memory:/c\n2:freezer:/\n";
        assert_eq!(group_limit(root.path(), own), Some(512));
    }
}
