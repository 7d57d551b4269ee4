//! One module per command group; this one dispatches.

pub mod bench;
mod datasets;
pub mod endpoints;
pub mod jobs;
mod keys;
pub mod models;

use std::process::ExitCode;

use nereid_client::Client;

use crate::{
    cli::{Cli, Command, ServerArgs},
    config::Config,
    demo, roles, telemetry,
};

/// Where a client command prints and whom it asks.
pub struct Context {
    pub client: Client,
    pub json: bool,
}

impl Context {
    fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let client = Client::new(&args.url, args.api_key.clone())?;
        Ok(Self {
            client,
            json: args.json,
        })
    }
}

/// Runs a command and returns the exit status.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = || Config::load(cli.config.as_deref());
    match cli.command {
        Command::Dev(args) => {
            let config = config()?;
            telemetry::start(&config.log)?;
            roles::dev::run(&config, &args).await?;
        }
        Command::Demo(args) => {
            let mut config = config()?;
            if config.log.filter == "info" {
                // The demo tells its own story; the log only what goes wrong.
                "warn".clone_into(&mut config.log.filter);
            }
            telemetry::start(&config.log)?;
            demo::run(&config, &args).await?;
        }
        Command::Api(args) => {
            let config = config()?;
            telemetry::start(&config.log)?;
            roles::api::run(&config, &args).await?;
        }
        Command::Worker(args) => {
            let config = config()?;
            telemetry::start(&config.log)?;
            roles::worker::run(&config, &args).await?;
        }
        Command::Pool(mut args) => {
            let config = config()?;
            telemetry::start(&config.log)?;
            args.config.clone_from(&cli.config);
            roles::pool::run(&config, &args).await?;
        }
        // Never comes here: a training has no use for the async runtime.
        Command::Trainer(args) => return roles::trainer::run(&args),
        Command::Probe(args) => return roles::trainer::probe(&args),
        Command::Migrate => roles::migrate(&config()?).await?,
        Command::Openapi => println!("{}", nereid_api::openapi().to_pretty_json()?),
        Command::Key(command) => keys::run(&config()?, command, cli.server.json).await?,
        Command::Bench(command) => {
            Box::pin(bench::run(config()?, command, cli.server.json)).await?;
        }
        Command::Dataset(command) => datasets::run(&Context::new(&cli.server)?, command).await?,
        Command::Job(command) => return jobs::run(&Context::new(&cli.server)?, command).await,
        Command::Model(command) => return models::run(&Context::new(&cli.server)?, command).await,
        Command::Endpoint(command) => endpoints::run(&Context::new(&cli.server)?, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}
