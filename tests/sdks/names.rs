//! FCM's hosts are this machine: a certificate for them, and a library that leads there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// Where the SDKs send.
const FCM: &str = "fcm.googleapis.com";

/// Where older ways of topic management lead.
const INSTANCE_ID: &str = "iid.googleapis.com";

/// Of the store of certificates that Java reads. It holds no secret.
pub const TRUST_STORE_PASSWORD: &str = "changeit";

/// A certificate for FCM's names, by an authority that nobody else knows.
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Issues one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = |params: &mut CertificateParams, name: &str| {
            params.distinguished_name.push(DnType::CommonName, name);
        };
        name(&mut params, "an authority for tests");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let names = [FCM, INSTANCE_ID, "127.0.0.1"].map(str::to_owned).to_vec();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("names");
        params.use_authority_key_identifier_extension = true;
        name(&mut params, FCM);
        let leaf = params.signed_by(&key, &authority).expect("a certificate");
        let certificate = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        let write = |path: PathBuf, text: String| std::fs::write(path, text).expect("written");
        write(certificate.chain(), leaf.pem() + &authority.pem());
        write(certificate.key(), key.serialize_pem());
        write(certificate.authority(), authority.pem());
        certificate
    }

    /// PEM: the certificate, and the authority's.
    pub fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    /// PEM.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// PEM: whom a client must trust.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// The authority, in the form that Java reads.
    pub fn trust_store(&self) -> PathBuf {
        let store = self.directory.path().join("authority.p12");
        if store.exists() {
            return store;
        }
        let made = Command::new("keytool")
            .args(["-importcert", "-noprompt", "-alias", "authority"])
            .args(["-storetype", "PKCS12", "-storepass", TRUST_STORE_PASSWORD])
            .arg("-keystore")
            .arg(&store)
            .arg("-file")
            .arg(self.authority())
            .output();
        assert!(made.expect("keytool").status.success());
        store
    }
}

/// The library that is loaded into an SDK's process, compiled once for a test process.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(directory).expect("a directory for the library");
        // A name of its own: another test process may have the last one's mapped.
        let library = directory.join(format!("by_name_{}.so", std::process::id()));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdks/by_name.c"))
            .arg("-ldl")
            .status();
        assert!(compiled.expect("a C compiler").success());
        library
    })
}
