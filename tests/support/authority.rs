//! An authority that signs certificates, made with openssl.

use std::{fs, path::PathBuf, process::Command};

/// An authority, and what it has signed.
pub struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let subject = format!("/CN={name}");
        let authority = Self { folder };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        authority
    }

    /// A file of its folder; its own certificate is `ca.pem`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key of a server that is reached at this name.
    pub fn sign(&self, name: &str) -> (String, String) {
        fs::write(self.path("names"), format!("subjectAltName={name}\n")).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=server",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.crt",
        ]);
        let read = |name| fs::read_to_string(self.path(name)).unwrap();
        (read("server.crt"), read("server.key"))
    }

    fn openssl(&self, args: &[&str]) {
        let made = Command::new("openssl")
            .current_dir(self.folder.path())
            .args(args)
            .output()
            .expect("openssl is missing: apt-get install -y openssl");
        assert!(made.status.success(), "{made:?}");
    }
}
