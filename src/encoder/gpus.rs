//! What the NVIDIA driver reports about itself and its GPUs, read from `nvidia-smi` or else from /proc.

use std::{path::Path, process::Command};

use serde::Serialize;

/// The driver and the GPUs that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// The source of the information: `nvidia-smi` or `/proc/driver/nvidia`; `None` if neither is available.
    pub source: Option<&'static str>,
    /// The driver's version, such as `580.65.06`.
    pub driver: Option<String>,
    /// The GPUs in the driver's order. CUDA counts only those in CUDA_VISIBLE_DEVICES, perhaps in another order.
    pub gpus: Vec<Gpu>,
    /// Whether `/dev/nvidiactl` exists, through which programs reach the driver. It does not exist in a container that
    /// was started without GPUs.
    pub control_device: bool,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The name, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// The memory size; only `nvidia-smi` reports it.
    pub memory_bytes: Option<u64>,
}

impl Gpus {
    /// Queries the driver of this machine.
    pub fn look() -> Gpus {
        Gpus {
            control_device: Path::new("/dev/nvidiactl").exists(),
            ..from_smi().unwrap_or_else(|| from_proc(Path::new("/proc/driver/nvidia")))
        }
    }

    /// Returns the name of the GPUs. If there are several models, returns all their names, because the driver's numbers
    /// may differ from CUDA's.
    pub fn name(&self) -> Option<String> {
        let mut names: Vec<&str> = self.gpus.iter().map(|gpu| &gpu.name[..]).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| names.join(" or "))
    }
}

fn from_smi() -> Option<Gpus> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=driver_version,memory.total,name", "--format=csv,noheader,nounits"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let gpus = parse_smi(&String::from_utf8_lossy(&output.stdout));
    gpus.driver.is_some().then_some(gpus)
}

/// Parses lines of the form `driver, memory in MiB, name`.
fn parse_smi(text: &str) -> Gpus {
    let mut found = Gpus { source: Some("nvidia-smi"), ..Gpus::default() };
    for line in text.lines() {
        let mut fields = line.splitn(3, ',').map(str::trim);
        if let (Some(driver), Some(memory), Some(name)) =
            (fields.next(), fields.next(), fields.next())
        {
            found.driver = Some(driver.into());
            let mebibytes = memory.parse::<u64>().ok();
            found.gpus.push(Gpu {
                name: name.into(),
                memory_bytes: mebibytes.map(|mebibytes| mebibytes << 20),
            });
        }
    }
    found
}

/// Reads the driver's version from `version`, which names the kernel module, and each GPU from
/// `gpus/<bus>/information`.
fn from_proc(folder: &Path) -> Gpus {
    let Ok(version) = std::fs::read_to_string(folder.join("version")) else {
        return Gpus::default();
    };
    // NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 ...
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    let driver = version.split_whitespace().find(is_version);
    let buses = std::fs::read_dir(folder.join("gpus")).into_iter().flatten();
    let mut buses: Vec<_> = buses.filter_map(|bus| Some(bus.ok()?.path())).collect();
    buses.sort();
    let gpus = buses.iter().filter_map(|bus| {
        let information = std::fs::read_to_string(bus.join("information")).ok()?;
        let model = information.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(Gpu { name: model.trim().into(), memory_bytes: None })
    });
    Gpus {
        source: Some("/proc/driver/nvidia"),
        driver: driver.map(String::from),
        gpus: gpus.collect(),
        control_device: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nvidia_smi_prints_is_read() {
        let found =
            parse_smi("580.65.06, 81559, NVIDIA H100 80GB HBM3\n580.65.06, [N/A], NVIDIA GB10\n");
        assert_eq!(found.driver.as_deref(), Some("580.65.06"));
        assert_eq!(found.gpus[0].memory_bytes, Some(81559 << 20));
        assert_eq!(found.gpus[1].memory_bytes, None);
        assert_eq!(found.name().unwrap(), "NVIDIA GB10 or NVIDIA H100 80GB HBM3");
        assert_eq!(parse_smi("No devices were found\n").driver, None);
    }

    #[test]
    fn what_stands_in_proc_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(from_proc(folder.path()), Gpus::default());
        std::fs::write(
            folder.path().join("version"),
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:18:42 UTC 2026\nGCC version: gcc 12.2.0\n",
        )
        .unwrap();
        for bus in ["0000:3b:00.0", "0000:af:00.0"] {
            let bus = folder.path().join("gpus").join(bus);
            std::fs::create_dir_all(&bus).unwrap();
            std::fs::write(
                bus.join("information"),
                "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 42\n",
            )
            .unwrap();
        }
        let found = from_proc(folder.path());
        assert_eq!(found.driver.as_deref(), Some("580.65.06"));
        assert_eq!(found.gpus.len(), 2);
        assert_eq!(found.name().unwrap(), "NVIDIA A100-SXM4-80GB");
    }
}
