//! Files that get their names together, once all of them are whole and durable.

#![expect(clippy::disallowed_methods, reason = "this is the door")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;

use super::{FileId, file_id, open_directory, retry, sync_parent};

/// What stands behind a name until its file is whole.
const UNFINISHED: &str = ".part";

/// Files in a directory that have their names only after [`Staging::finish`]. Dropped without it, it leaves nothing. A crash leaves
/// files that end in `.part`, which the next staging of the same names takes over.
#[derive(Debug)]
pub struct Staging(Arc<Mutex<Option<Staged>>>);

#[derive(Debug)]
struct Staged {
    directory: PathBuf,
    /// The directory was made for them.
    is_made: bool,
    files: Vec<(PathBuf, File)>,
}

impl Staging {
    /// Makes empty files, which are locked, so that nobody else stages one of these names. The directory is made if it is not there
    /// but its parent is. Returns the files in the order of `names`.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if one of the names is taken; [`io::ErrorKind::WouldBlock`] if somebody stages it; else those
    /// of `mkdir`, `open` and `flock`.
    pub fn begin<const N: usize>(directory: &Path, names: [&str; N]) -> io::Result<(Self, [File; N])> {
        let is_made = match fs::DirBuilder::new().mode(0o750).create(directory) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !directory.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                false
            }
            Err(error) => return Err(error),
        };
        let mut staged = Staged { directory: directory.to_owned(), is_made, files: Vec::new() };
        let created: io::Result<Vec<File>> = names.iter().map(|name| staged.create(name)).collect();
        // Dropped before this, it takes with it what was created.
        let staging = Self(Arc::new(Mutex::new(Some(staged))));
        Ok((staging, created?.try_into().expect("a file for each name")))
    }

    /// Makes the files durable, and then gives them their names, in the order in which they were asked for; the names are durable then.
    ///
    /// # Errors
    /// Those of `fsync` and `rename`, after which nothing is left.
    pub fn finish(self) -> io::Result<()> {
        let mut staged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = &mut *staged else { return Err(io::ErrorKind::Interrupted.into()) };
        all.finish()?;
        *staged = None;
        Ok(())
    }

    /// What removes the files if they have no names yet, wherever it is called: after it, nothing finishes.
    pub fn abandon(&self) -> impl Fn() + Send + 'static {
        let staged = Arc::clone(&self.0);
        move || {
            if let Some(staged) = staged.lock().unwrap_or_else(PoisonError::into_inner).take() {
                staged.remove();
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.abandon()();
    }
}

impl Staged {
    fn create(&mut self, name: &str) -> io::Result<File> {
        let target = self.directory.join(name);
        let is_free = || match fs::symlink_metadata(&target) {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{name}` is there already"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        is_free()?;
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).expect("open's flags fit an int"))
            .open(unfinished(&target))?;
        retry(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive))?;
        // Whoever has finished meanwhile has given this very file its name.
        is_free()?;
        self.files.push((target, file.try_clone()?));
        file.set_len(0)?;
        Ok(file)
    }

    fn finish(&mut self) -> io::Result<()> {
        for (_, file) in &self.files {
            file.sync_all()?;
        }
        let mut named = 0;
        let finished = (|| {
            for (target, _) in &self.files {
                fs::rename(unfinished(target), target)?;
                named += 1;
            }
            open_directory(&self.directory)?.sync_all()?;
            if self.is_made { sync_parent(&self.directory) } else { Ok(()) }
        })();
        if finished.is_err() {
            for (target, _) in &self.files[..named] {
                fs::rename(target, unfinished(target))?;
            }
        }
        finished
    }

    /// Removes what is left, as far as that is possible: whoever asks for it has a fault to tell already.
    fn remove(self) {
        for (target, _) in &self.files {
            fs::remove_file(unfinished(target)).unwrap_or(());
        }
        if self.is_made {
            fs::remove_dir(&self.directory).unwrap_or(());
        }
    }
}

fn unfinished(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(UNFINISHED);
    path.into()
}

/// Whether a path, of which the end need not exist, leads into a directory or is that directory: by whichever mount or link.
///
/// # Errors
/// Those of `stat` and `realpath`, other than that there is no such directory.
pub fn lies_in(path: &Path, directory: &Path) -> io::Result<bool> {
    let id = |path: &Path| -> io::Result<Option<FileId>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(file_id(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    let Some(directory) = id(directory)? else { return Ok(false) };
    let here = Path::new(".");
    let mut existing = path.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path });
    let Some(existing) = existing.find(|path| path.exists()) else { return Ok(false) };
    for ancestor in fs::canonicalize(existing)?.ancestors() {
        if id(ancestor)? == Some(directory) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_have_their_names_once_all_are_finished() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("new");
        let (staging, [mut one, _two]) = Staging::begin(&directory, ["one", "two"]).unwrap();
        one.write_all(b"x").unwrap();
        assert_eq!(names(&directory), ["one.part", "two.part"]);
        staging.finish().unwrap();
        assert_eq!(names(&directory), ["one", "two"]);
        assert_eq!(fs::read(directory.join("one")).unwrap(), b"x");
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("new");
        drop(Staging::begin(&directory, ["one", "two"]).unwrap());
        assert!(!directory.exists());
        let (staging, _) = Staging::begin(temp.path(), ["one", "two"]).unwrap();
        staging.abandon()();
        assert_eq!(staging.finish().unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(names(temp.path()).is_empty());
    }

    #[test]
    fn what_a_crash_left_is_taken_over_and_what_somebody_stages_is_not() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("two.part"), "left").unwrap();
        let (staging, _) = Staging::begin(temp.path(), ["one", "two"]).unwrap();
        let other = Staging::begin(temp.path(), ["three", "two"]).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(names(temp.path()), ["one.part", "two.part"]);
        staging.finish().unwrap();
        assert_eq!(fs::read(temp.path().join("two")).unwrap(), b"");
        let taken = Staging::begin(temp.path(), ["three", "two"]).unwrap_err();
        assert_eq!(
            (taken.kind(), taken.to_string()),
            (io::ErrorKind::AlreadyExists, "`two` is there already".to_owned())
        );
        assert!(!temp.path().join("three.part").exists());
    }

    #[test]
    fn a_path_lies_in_a_directory_whatever_leads_there() {
        let temp = tempfile::tempdir().unwrap();
        let (audit, other) = (temp.path().join("audit"), temp.path().join("other"));
        fs::create_dir_all(audit.join("5")).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(audit.join("5"), other.join("link")).unwrap();
        for (path, is_in) in [
            (audit.clone(), true),
            (audit.join("5/new/newer"), true),
            (other.join("link/new"), true),
            (other.join("../audit/new"), true),
            (other.join("new"), false),
            (temp.path().to_owned(), false),
        ] {
            assert_eq!(lies_in(&path, &audit).unwrap(), is_in, "{}", path.display());
        }
        assert!(!lies_in(&audit, &temp.path().join("none")).unwrap());
    }
}
