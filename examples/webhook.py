"""A webhook: a content system publishes a post, and its pages go.

The content system signs each message with a secret of its own, as most do: an HMAC-SHA256 of the body, in a
field. Here the message says which post was published, and the purge goes to the store that the site's
workers share.

Run it:
    WEBHOOK_SECRET=… STORE=redis://localhost/0 gunicorn --chdir examples webhook:application
"""

import hmac
import os
from urllib.parse import quote

from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, ServiceUnavailable
from werkzeug.wrappers import Request, Response

from wsgicache.client import Client
from wsgicache.stores import StoreError


def make_application(secret, client):
    """The webhook as a WSGI app.

    Args:
        secret: shared with the content system.
        client: a `Client`, or the cache itself where the webhook is part of the site.
    """

    @Request.application
    def application(request):
        request.max_content_length = 65536
        try:
            sent = request.headers.get("X-Signature", "")
            made = hmac.new(secret.encode(), request.get_data(), "sha256").hexdigest()
            if not hmac.compare_digest(sent.encode(), made.encode()):
                raise Forbidden("the signature is not ours")
            message = request.get_json()
            if (
                not isinstance(message, dict)
                or not isinstance(message.get("slug"), str)
                or not message["slug"].isprintable()
            ):
                raise BadRequest("send the slug of the post")
        except HTTPException as error:
            return error
        try:
            client.purge(f"/posts/{quote(message['slug'], safe='')}", wait=True)
            client.purge_groups("posts", wait=True)  # the pages that list posts carry this group
        except StoreError as error:
            return ServiceUnavailable(f"nothing was purged, send it again: {error}")
        return Response("purged\n")

    return application


def __getattr__(name):
    """The application is made when a server asks for it, of what the environment says."""
    if name != "application":
        raise AttributeError(name)
    # An empty secret is none: anybody could sign with it.
    missing = [variable for variable in ("WEBHOOK_SECRET", "STORE") if not os.environ.get(variable)]
    if missing:
        raise SystemExit(f"the webhook needs {' and '.join(missing)} in the environment: see its first lines")
    return make_application(os.environ["WEBHOOK_SECRET"], Client(os.environ["STORE"]))
