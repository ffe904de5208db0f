"""Stands in for the infrastructure's Lambda that counts an image's findings.

Takes `{"repository", "imageTag"}`, answers `{"totalFindings": n}`.
"""

from typing import Any


def handler(event: dict[str, Any], _context: Any) -> dict[str, int]:
    """Count the findings of all pages."""
    import boto3

    pages = boto3.client("ecr").get_paginator("describe_image_scan_findings")
    image = {"imageTag": event["imageTag"]}
    found = [
        finding
        for page in pages.paginate(repositoryName=event["repository"], imageId=image)
        for finding in page["imageScanFindings"].get("findings", [])
    ]
    return {"totalFindings": len(found)}
