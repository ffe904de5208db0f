"""What is in the embedded AWS before anybody has deployed: everything that the settings name.

It is put into moto's stores and not asked for by requests, because this happens before every test.
"""

import json
from typing import Any
from urllib.parse import urlsplit

from local_aws.cloud import ACCOUNT, Cloud
from local_aws.ecs import Ecs
from local_aws.lambdas import Function, Lambda
from local_aws.registry import sha256
from local_aws.scenarios import FIRST_VERSION, NEXT_VERSION
from local_aws.site import Site
from scripts.frame import settings
from scripts.frame.settings import Environment

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
NETWORK = {
    "awsvpcConfiguration": {
        "subnets": ["subnet-1", "subnet-2"],
        "securityGroups": ["sg-1"],
        "assignPublicIp": "DISABLED",
    }
}
BREAKER = {
    "deploymentCircuitBreaker": {"enable": True, "rollback": True},
    "maximumPercent": 200,
    "minimumHealthyPercent": 100,
}


def embedded() -> list[Environment]:
    """The environments of the settings file that have an endpoint of their own."""
    every = [settings.environment(name, dry_run=True) for name in settings.names()]
    return [env for env in every if env.endpoint_url]


def sites() -> dict[str, Site]:
    """Host name -> site of each environment."""
    return {f"{env.name.lower()}.localhost": _site(env) for env in embedded()}


def _site(env: Environment) -> Site:
    bucket = env.frontend.bucket.known()
    base = (env.frontend.base or f"/{bucket.partition('/')[2]}").rstrip("/")
    return Site(bucket, base, urlsplit(env.healthcheck).path, (env.region, env.cluster, env.service.name))


def seed(cloud: Cloud, ecs: Ecs, functions: Lambda) -> None:
    """Create what every embedded environment needs."""
    for env in embedded():
        _images(cloud, env)
        _parameters(env)
        _services(cloud, ecs, env)
        _buckets(env)
        _database(env)
        _functions(functions, env)


def _images(cloud: Cloud, env: Environment) -> None:
    """The repositories, with immutable tags, and their two versions."""
    from moto.ecr.models import ecr_backends

    stored = ecr_backends[ACCOUNT][env.region]
    for name in {env.service.image, env.migrations.image, env.cleaner.service} - {"", *stored.repositories}:
        stored.create_repository(name, None, {}, None, "IMMUTABLE", [])
        for version in (FIRST_VERSION, NEXT_VERSION):
            stored.put_image(name, _manifest(cloud, version), version, MANIFEST)


def _manifest(cloud: Cloud, version: str) -> str:
    """The manifest of an image without layers, whose configuration is stored."""
    labels = {"org.opencontainers.image.version": version}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": labels}}).encode()
    digest = sha256(config)
    cloud.blobs[digest] = config
    kind = "application/vnd.docker.container.image.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": kind, "size": len(config), "digest": digest},
        "layers": [],
    }
    return json.dumps(manifest)


def _parameters(env: Environment) -> None:
    """Two that become secrets, and one without the tag that does not."""
    from moto.ssm.models import ssm_backends

    folder = f"/{env.name}/{env.application.name}"
    rows = [
        (f"{folder}/{name.lower()}", f"secret-{name.lower()}", "SecureString", [{"Key": "ENV_VAR_NAME", "Value": name}])
        for name in ("POSTGRES_PASSWORD", "OKTA_CLIENT_SECRET")
    ]
    rows.append((f"{folder}/note", "for people", "String", []))
    for name, value, kind, tags in rows:
        ssm_backends[ACCOUNT][env.region].put_parameter(
            name, "", value, kind, "", "", overwrite=False, tags=tags, data_type="text", tier=None, policies=None
        )


def _services(cloud: Cloud, ecs: Ecs, env: Environment) -> None:
    from moto.logs.models import logs_backends

    ecs.create_cluster(env.region, {"clusterName": env.cluster})
    images = {
        env.service.name: env.service.image,
        env.migrations.service: env.migrations.image,
        env.cleaner.service: env.cleaner.service,
    }
    logs_backends[ACCOUNT][env.region].create_log_group(f"/ecs/{env.cluster}", {})
    for service, image in images.items():
        if not service:
            continue
        definition = ecs.register(env.region, _definition(cloud, env, service, image))["taskDefinition"]
        ecs.create_service(
            env.region,
            {
                "cluster": env.cluster,
                "serviceName": service,
                "taskDefinition": definition["taskDefinitionArn"],
                "desiredCount": 2 if service == env.service.name else 0,
                "launchType": "FARGATE",
                "platformVersion": "1.4.0",
                "networkConfiguration": NETWORK,
                "deploymentConfiguration": BREAKER,
            },
        )


def _definition(cloud: Cloud, env: Environment, service: str, image: str) -> dict[str, Any]:
    """A task definition with all kinds of fields, which a careless deployment would lose."""
    options = {
        "awslogs-group": f"/ecs/{env.cluster}",
        "awslogs-region": env.region,
        "awslogs-stream-prefix": service,
    }
    name = f"{env.name}-{env.application.name}"
    parameter = f"/{env.name}/{env.application.name}/postgres_password"
    serves = service == env.service.name
    prints = f"{service} listens on port 8080" if serves else f"{service} begins|{service} is done"
    return {
        "family": f"{env.name}-{service}",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/{name}-execution",
        "taskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/{name}-task",
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        "ephemeralStorage": {"sizeInGiB": 30},
        "volumes": [{"name": "scratch"}],
        "tags": [{"key": "project", "value": env.application.name}],
        "containerDefinitions": [
            {
                "name": service,
                "image": f"{cloud.host}/{image}:{FIRST_VERSION}",
                "essential": True,
                "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
                "environment": [
                    {"name": "APP_ENV", "value": env.name},
                    {"name": "LOG", "value": prints},
                ],
                "secrets": [{"name": "POSTGRES_PASSWORD", "valueFrom": parameter}],
                "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch"}],
                "logConfiguration": {"logDriver": "awslogs", "options": options},
            },
            {"name": "log-router", "image": "public.ecr.aws/log-router:stable", "essential": False},
        ],
    }


def _buckets(env: Environment) -> None:
    from moto.s3.models import s3_backends

    for bucket in {setting.require() for setting in (env.frontend.bucket, env.storybook.bucket) if setting}:
        if "<" not in bucket:
            s3_backends[ACCOUNT]["aws"].create_bucket(bucket, env.region)


def _database(env: Environment) -> None:
    from moto.rds.models import rds_backends

    if env.database.name:
        rds_backends[ACCOUNT][env.region].create_db_instance(
            {
                "db_instance_identifier": env.database.name.require(),
                "db_instance_class": "db.t3.micro",
                "engine": "postgres",
                "allocated_storage": 20,
                "master_username": "app",
                "master_user_password": "local-database",
            }
        )


def _functions(functions: Lambda, env: Environment) -> None:
    manager = "ecs_manager.handler:handler"
    known = [(env.manager.function, env.manager.qualifier, manager)]
    if env.cleaner.function:
        known.append((env.cleaner.function, env.cleaner.qualifier, manager))
    if env.scan.function:
        known.append((env.scan.function.require(), env.scan.qualifier, "local_aws.scan_findings:handler"))
    for name, qualifier, handler in known:
        functions.add(Function(name, handler, env.region, {"$LATEST", qualifier}))
