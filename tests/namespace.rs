//! The kernel: the built binary on a real process in new namespaces, with an image of a few files.
//! The container's mount table and files are right afterwards, and the host's are what they were.

mod bundle;
#[path = "namespace/process.rs"]
mod process;

#[path = "namespace/cgroups.rs"]
mod cgroups;
#[path = "namespace/copies.rs"]
mod copies;
#[path = "namespace/image.rs"]
mod image;
#[path = "namespace/machine_id.rs"]
mod machine_id;
#[path = "namespace/machine_id_disk.rs"]
mod machine_id_disk;
#[path = "namespace/machine_id_links.rs"]
mod machine_id_links;
#[path = "namespace/machine_id_source.rs"]
mod machine_id_source;
#[path = "namespace/machine_id_volume.rs"]
mod machine_id_volume;
#[path = "namespace/mounts.rs"]
mod mounts;
#[path = "namespace/read_only.rs"]
mod read_only;
#[path = "namespace/refusals.rs"]
mod refusals;
#[path = "namespace/sizes.rs"]
mod sizes;
#[path = "namespace/volumes.rs"]
mod volumes;
