"""The ecs-manager Lambda: deploys services, runs one-off tasks and reports health, in ECS.

Its entry point is `ecs_manager.handler.handler`. It needs boto3 and nothing else; `invoke
package-ecs-manager` makes the zip.
"""
