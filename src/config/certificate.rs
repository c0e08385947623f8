//! The certificate of the console and its key: two files that are replaced when the certificate is renewed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info};

use super::file::{FileError, bytes};
use super::reload::Settling;
use crate::http::{Identity, IdentityError};

/// How often the files are read.
const READ_EVERY: Duration = Duration::from_secs(1);

type Content = Result<(Vec<u8>, Vec<u8>), FileError>;

/// Watches a certificate and its key.
#[derive(Debug)]
pub struct Watch {
    files: Files,
    content: Settling<Content>,
    publish: watch::Sender<Identity>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Content {
        Ok((bytes(&self.certificate)?, bytes(&self.key)?))
    }

    fn parse(&self, (certificate, key): &(Vec<u8>, Vec<u8>)) -> Result<Identity, FileError> {
        Identity::parse(certificate, key).map_err(|error| {
            let file = if error == IdentityError::NoKey { &self.key } else { &self.certificate };
            FileError::whole(file, error.to_string())
        })
    }
}

impl Watch {
    /// Reads both for the first time, and makes a watcher of them.
    ///
    /// # Errors
    /// One can't be read, or they are no certificate and its key.
    pub fn new(certificate: &Path, key: &Path) -> Result<(Self, watch::Receiver<Identity>), FileError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let content = files.read()?;
        let (publish, identity) = watch::channel(files.parse(&content)?);
        Ok((Self { files, content: Settling::of(Ok(content)), publish }, identity))
    }

    /// Watches for ever. What can't be used changes nothing.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(READ_EVERY).await;
            let files = self.files.clone();
            if let Ok(read) = tokio::task::spawn_blocking(move || files.read()).await {
                self.consider(read);
            }
        }
    }

    fn consider(&mut self, content: Content) {
        let Some(content) = self.content.consider(content, false) else { return };
        match content.as_ref().map_err(Clone::clone).and_then(|content| self.files.parse(content)) {
            Ok(identity) => {
                info!("certificate read");
                self.publish.send_replace(identity);
            }
            Err(error) => error!(%error, "bad certificate: the one before stays in force"),
        }
    }
}
