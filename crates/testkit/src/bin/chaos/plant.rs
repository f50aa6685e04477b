//! A whole Docmill to break: real Postgres, NATS and object store of a home of its own, four processes of the binary
//! (api, engine, two workers), and a breakable link between them and each service.

use crate::environment::environment;
use crate::receiver::Receiver;
use anyhow::{Context, Result, bail, ensure};
use docmill_embedded::process::{Service, Signal};
use docmill_embedded::stack::DATABASE;
use docmill_embedded::{Home, Stack, Wanted};
use docmill_testkit::proxy::{Proxy, Upstream};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Names of processes of the binary with their roles.
pub type Processes = &'static [(&'static str, &'static str)];
/// Each role apart, and two workers.
pub const APART: Processes =
    &[("api", "api"), ("engine", "relay,reconciler"), ("worker-1", "worker"), ("worker-2", "worker")];
/// Name of the tenant that operates the installation.
pub const OPERATOR: &str = "chaos";
/// The services.
pub const SERVICES: [&str; 3] = ["postgres", "nats", "objects"];
/// How long anything may take to answer after it was started.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the plant is set up.
#[derive(Clone)]
pub struct Settings {
    pub docmill: PathBuf,
    /// `hash` or `local`.
    pub embedder: String,
    /// As the engine reads it, e.g. `2s`.
    pub lease: String,
    pub keep: bool,
}

/// A tenant of the plant.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: String,
    /// May do everything in its tenant.
    pub key: String,
}

/// Everything that runs.
pub struct Plant {
    pub home: Home,
    pub stack: Stack,
    pub runtime: Runtime,
    pub postgres: Proxy,
    pub nats: Proxy,
    pub objects: Proxy,
    /// Where the webhooks of every tenant go.
    pub receiver: Receiver,
    pub processes: Processes,
    settings: Settings,
    environment: Vec<(String, String)>,
    children: Mutex<Vec<Option<Child>>>,
    port: u16,
}

impl Plant {
    /// Starts everything and waits until the API answers. `prepare` runs before the services start.
    pub fn start(
        name: &str,
        settings: &Settings,
        processes: Processes,
        prepare: impl FnOnce(&Home) -> Result<()>,
    ) -> Result<Self> {
        let home = docmill_testkit::scratch_home(&format!("{name}-{}", std::process::id()))?;
        prepare(&home)?;
        let stack = Stack::of(&home)?;
        stack.start(Wanted::ALL, &["object-store"])?;
        stack.migrate()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (postgres, nats, objects) = runtime.block_on(links(&home, &stack))?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let environment = environment(&home, &stack, settings, (&postgres, &nats, &objects))?;
        let children = Mutex::new(processes.iter().map(|_| None).collect());
        let mut plant = Self {
            home,
            stack,
            runtime,
            postgres,
            nats,
            objects,
            receiver: Receiver::start()?,
            processes,
            settings: settings.clone(),
            environment,
            children,
            port,
        };
        let operator = plant.tenant(OPERATOR)?;
        plant.environment.push(("DOCMILL_OPERATOR_TENANT".into(), operator.id));
        plant.environment.push(("DOCMILL_API_KEY".into(), operator.key));
        plant.environment.push(("DOCMILL_URL".into(), format!("http://127.0.0.1:{}", plant.port)));
        for (name, _) in processes {
            plant.run(name, &[])?;
        }
        plant.wait_ready()?;
        Ok(plant)
    }

    /// A tenant of this name with a key that may do everything in it and a webhook that goes to the receiver. Made past
    /// the API, so it may be away.
    pub fn tenant(&self, name: &str) -> Result<Tenant> {
        let scopes = "upload,query,operate,content:read,admin";
        let mut made =
            self.command(&["keys", "create", "--name", "chaos", "--scopes", scopes, "--tenant", name, "--json"]);
        let made = answer(&made.env_remove("DOCMILL_API_KEY").env_remove("DOCMILL_URL").output()?)?;
        let text =
            |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in the new key"));
        let tenant = Tenant { id: text("tenant_id")?, key: text("key")? };
        self.runtime.block_on(async {
            sqlx::query(
                "INSERT INTO webhook_endpoints (tenant_id, id, url, secrets)
                 SELECT $1::uuid, gen_random_uuid(), $2, ARRAY[$3] WHERE NOT EXISTS (
                    SELECT 1 FROM webhook_endpoints WHERE tenant_id = $1::uuid)",
            )
            .bind(&tenant.id)
            .bind(self.receiver.url())
            .bind(docmill_platform::webhooks::fresh_secret().expose_secret())
            .execute(&mut self.owner().await?)
            .await?;
            anyhow::Ok(())
        })?;
        Ok(tenant)
    }

    /// The binary as a client of a tenant.
    pub fn command_of(&self, tenant: &Tenant, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("DOCMILL_API_KEY", &tenant.key);
        command
    }

    /// The binary as a client, with the plant's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.settings.docmill);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").args(arguments).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("DOCMILL_HOME", self.home.root().join("client"));
        command
    }

    fn index(&self, name: &str) -> Result<usize> {
        self.processes
            .iter()
            .position(|(known, _)| *known == name)
            .with_context(|| format!("there is no process {name}"))
    }

    fn children(&self) -> MutexGuard<'_, Vec<Option<Child>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one process; `extra` is added to its environment.
    pub fn run(&self, name: &str, extra: &[(String, String)]) -> Result<()> {
        let index = self.index(name)?;
        let data = self.home.data().join(name);
        std::fs::create_dir_all(&data)?;
        let log = File::options().create(true).append(true).open(self.home.logs().join(format!("{name}.log")))?;
        let mut command = self.command(&["serve", "--roles", self.processes[index].1]);
        let listen = if self.processes[index].1.contains("api") { self.port } else { 0 };
        command.env("DOCMILL_DATA_DIR", data).env("DOCMILL_LISTEN", format!("127.0.0.1:{listen}"));
        command.env_remove("DOCMILL_API_KEY").env_remove("DOCMILL_URL").envs(extra.iter().cloned());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        self.children()[index] = Some(command.spawn().with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    /// Port of the API.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id, while it lives.
    pub fn pid(&self, name: &str) -> Option<u32> {
        let mut children = self.children();
        let child = children[self.index(name).ok()?].as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// Kills one process of the binary and waits for its end.
    pub fn kill(&self, name: &str) -> Result<()> {
        let child = self.children()[self.index(name)?].take();
        if let Some(mut child) = child {
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// Starts every process that is not there: what a supervisor does.
    pub fn revive(&self, except: &[&str]) -> Result<()> {
        for (name, _) in self.processes {
            if !except.contains(name) && self.pid(name).is_none() {
                self.run(name, &[])?;
            }
        }
        Ok(())
    }

    /// One service of the stack, as a process.
    pub fn service(&self, name: &str) -> Result<Service> {
        let home = &self.home;
        Ok(match name {
            "postgres" => Service::new(home, "postgres", "postgres", &home.data().join("postgres")),
            "nats" => Service::new(home, "nats", "nats-server", &home.run().join("nats.conf")),
            "objects" => Service::new(home, "objects", "docmill-object-store", home.root()),
            _ => bail!("there is no service {name}"),
        })
    }

    /// Sends a signal to a service and waits until the process is gone.
    pub fn fell(&self, name: &str, signal: Signal) -> Result<()> {
        let service = self.service(name)?;
        let Some(pid) = service.pid() else { return Ok(()) };
        service.signal(signal);
        let gone = docmill_embedded::process::wait_until(Duration::from_secs(20), || !service.is(pid));
        ensure!(gone, "{name} does not end after {signal:?}");
        Ok(())
    }

    /// Starts whatever service is not there.
    pub fn start_services(&self) -> Result<()> {
        Ok(self.stack.start(Wanted::ALL, &["object-store"])?)
    }

    /// Waits until the API answers that it is ready.
    pub fn wait_ready(&self) -> Result<()> {
        let started = Instant::now();
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        loop {
            let asked = self.command(&["health", "--at", &url]).stderr(Stdio::null()).status()?;
            if asked.success() {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "the API does not get ready; logs are in {}",
                self.home.logs().display()
            );
            self.revive(&[])?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a client command and returns its last line as JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.command(&[arguments, &["--json"]].concat()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("docmill {arguments:?} said: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// A connection as the owner of the schema, past the breakable link; waits for a Postgres that is coming back.
    pub async fn owner(&self) -> Result<PgConnection> {
        let url = self.stack.database_urls(DATABASE)?.owner;
        let started = Instant::now();
        loop {
            match PgConnection::connect(&url).await {
                Ok(connection) => return Ok(connection),
                Err(error) if started.elapsed() > PATIENCE => return Err(error).context("Postgres stays away"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A connection that sees what a tenant sees; nothing when `tenant` is none.
    pub async fn as_tenant(&self, tenant: Option<&str>) -> Result<PgConnection> {
        let mut connection = PgConnection::connect(&self.stack.database_urls(DATABASE)?.app).await?;
        if let Some(tenant) = tenant {
            let set = sqlx::query("SELECT set_config('docmill.tenant', $1, false)").bind(tenant);
            set.execute(&mut connection).await?;
        }
        Ok(connection)
    }

    /// One number from the database.
    pub fn count(&self, sql: &'static str) -> Result<i64> {
        self.runtime.block_on(async {
            let mut connection = self.owner().await?;
            Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
        })
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        for (name, _) in self.processes {
            let _ = self.kill(name);
        }
        self.stack.stop();
        if self.settings.keep {
            eprintln!("kept: {}", self.home.root().display());
        } else {
            crate::disk::unmount(&self.home);
            let _ = std::fs::remove_file(self.home.parts());
            let _ = std::fs::remove_dir_all(self.home.root());
        }
    }
}

/// The last line of a command's output as JSON.
fn answer(output: &std::process::Output) -> Result<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}

async fn links(home: &Home, stack: &Stack) -> Result<(Proxy, Proxy, Proxy)> {
    let postgres = Proxy::open(Upstream::Unix(home.run().join(".s.PGSQL.5432"))).await?;
    let (nats, objects) = (stack.clone(), stack.clone());
    let nats = Proxy::open(Upstream::Tcp(Box::new(move || address(&nats.nats_url().ok()?)))).await?;
    let store = move || address(&objects.endpoints(DATABASE).ok()?.store.endpoint);
    Ok((postgres, nats, Proxy::open(Upstream::Tcp(Box::new(store))).await?))
}

/// The address in a URL that may hold credentials.
fn address(url: &str) -> Option<SocketAddr> {
    url.split("://").nth(1)?.rsplit('@').next()?.trim_end_matches('/').parse().ok()
}
