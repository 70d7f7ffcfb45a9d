//! The bundle of a container: an image below an overlay, the config.json, a copy of the hook, and room for what
//! the runtime and the tests keep.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::config::{FIRST_ID, default_seccomp, docker_defaults_and_hook, remove_mount};
use super::{View, directory, hook, image};

pub(super) struct Bundle<'view> {
    view: &'view View,
    pub(super) directory: PathBuf,
    pub(super) wants_terminal: bool,
}

impl<'view> Bundle<'view> {
    /// A bundle with Docker's defaults and the hook, its config.json edited, and its root file system mounted.
    pub(super) fn make(
        view: &'view View,
        id: &str,
        image_name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Self {
        // Short, for the path of a socket in it has room for 107 bytes.
        let directory = directory().join("boot").join(&id[..12]);
        for name in ["upper", "work", "rootfs", "state"] {
            fs::create_dir_all(directory.join(name)).expect("the lab's directory can be written");
        }
        let mut bundle = Self {
            view,
            directory,
            wants_terminal: false,
        };
        copy_hook(&bundle.directory);
        let mut config = docker_defaults_and_hook(id, &bundle.directory);
        if view.cgroups == "none" {
            remove_mount(&mut config, "/sys/fs/cgroup");
            config["linux"]["resources"] = json!({});
        }
        edit(&mut config);
        config["linux"]["seccomp"] = default_seccomp(&config);
        bundle.wants_terminal = config["process"]["terminal"] == true;
        let text = serde_json::to_vec_pretty(&config).expect("config.json can be written as text");
        fs::write(bundle.directory.join("config.json"), text).expect("the bundle can be written");
        if config["linux"]["uidMappings"].is_null() {
            bundle.mount_rootfs(&image(image_name), &config);
        } else {
            for name in ["upper", "rootfs"] {
                chown(bundle.directory.join(name), Some(FIRST_ID), Some(FIRST_ID))
                    .expect("root can change owners");
            }
            bundle.mount_rootfs(&image(&format!("{image_name}.userns")), &config);
        }
        bundle
    }

    /// As engines do it: with the container's label, which mount(8) leaves out where there is no SELinux.
    fn mount_rootfs(&self, lower: &Path, config: &Value) {
        let [upper, work] =
            ["upper", "work"].map(|name| self.directory.join(name).display().to_string());
        let label = config["linux"]["mountLabel"].as_str();
        let context = label.map(|label| format!(",context=\"{label}\""));
        let layers = format!(
            "lowerdir={},upperdir={upper},workdir={work}{}",
            lower.display(),
            context.unwrap_or_default()
        );
        let rootfs = self.directory.join("rootfs").display().to_string();
        self.view.run(
            "mount",
            &["-t", "overlay", "-o", &layers, "overlay", &rootfs],
        );
    }

    /// A path of the root file system, as this process reaches it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.view
            .path(&self.directory.join("rootfs"))
            .join(path.trim_start_matches('/'))
    }

    /// Make a file in the root file system, with the directories above it.
    pub(super) fn write(&self, path: &str, mode: u32, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory"))
            .expect("the rootfs can be written");
        let _ = fs::remove_file(&path); // which may be a link
        fs::write(&path, content).expect("the rootfs can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .expect("the rootfs can be written");
    }
}

impl Drop for Bundle<'_> {
    fn drop(&mut self) {
        let rootfs = self.directory.join("rootfs");
        let _ = self
            .view
            .command("umount")
            .arg("--lazy")
            .arg(&rootfs)
            .output();
        if std::thread::panicking() && std::env::var_os("KEEP").is_some() {
            eprintln!("kept: {}", self.directory.display());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Not by this process: another thread's child might hold it open for writing while it is executed.
pub(crate) fn copy_hook(directory: &Path) {
    let copied = Command::new("install")
        .arg("-m755")
        .arg(hook())
        .arg(directory.join("hook"))
        .status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "cannot copy {}",
        hook().display()
    );
}
