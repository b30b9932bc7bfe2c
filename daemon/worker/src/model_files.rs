//! Where the files are that a member gives to its model server: packages, and the data of trainings.
//!
//! A model server that the member starts is the member's own user, and reads them in the data directory, which nobody else may
//! enter. One of another user shares a folder with the member instead. That folder's own mode decides who may enter it; so
//! what lies in it may be read by whoever gets there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o444;
/// For a file that its owner may execute.
const PROGRAM_MODE: u32 = 0o555;
const OWNER_EXECUTES: u32 = 0o100;

/// The folder of these files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    folder: PathBuf,
    is_shared: bool,
}

impl ModelFiles {
    /// In the data directory, for a model server of the same user.
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned(), is_shared: false }
    }

    /// In a folder that the model server's user may enter.
    pub fn shared(folder: PathBuf) -> Self {
        Self { folder, is_shared: true }
    }

    /// The folder of the packages.
    pub fn packages(&self) -> PathBuf {
        self.folder.join(super::packages::FOLDER)
    }

    /// The folder of the data of trainings.
    pub fn training(&self) -> PathBuf {
        self.folder.join("training")
    }

    /// Lets another user's model server read everything at `path`, which lies in the folder.
    pub async fn share(&self, path: &Path) -> io::Result<()> {
        if !self.is_shared {
            return Ok(());
        }
        let (root, path) = (self.folder.clone(), path.to_owned());
        let shared = spawn_blocking(move || {
            path.ancestors().skip(1).take_while(|folder| *folder != root).try_for_each(share_folder)?;
            share_all(&path)
        });
        shared.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn share_folder(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
}

fn share_all(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        share_folder(path)?;
        return fs::read_dir(path)?.try_for_each(|entry| share_all(&entry?.path()));
    }
    let is_program = metadata.permissions().mode() & OWNER_EXECUTES != 0;
    fs::set_permissions(path, Permissions::from_mode(if is_program { PROGRAM_MODE } else { FILE_MODE }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn only_what_lies_in_a_shared_folder_may_be_read_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("training/m/0");
        let (data, program) = (place.join("sub/data"), place.join("sub/program"));
        fs::create_dir_all(place.join("sub")).unwrap();
        for (path, mode) in [(&data, 0o600), (&program, 0o700)] {
            fs::write(path, b"x").unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        for path in [folder.path(), &folder.path().join("training"), &place] {
            fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        }
        ModelFiles::in_data_dir(folder.path()).share(&place).await.unwrap();
        assert_eq!((mode(&place), mode(&data)), (0o700, 0o600), "its own user reads it already");
        ModelFiles::shared(folder.path().to_owned()).share(&place).await.unwrap();
        for path in [folder.path().join("training"), folder.path().join("training/m"), place] {
            assert_eq!(mode(&path), 0o755, "{}", path.display());
        }
        assert_eq!((mode(&data), mode(&program)), (0o444, 0o555));
        assert_eq!(mode(folder.path()), 0o700, "who may enter is for whoever made it to say");
    }
}
