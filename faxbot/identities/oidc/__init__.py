"""People sign in at an OpenID provider: Authorization Code with PKCE (OpenID Connect Core 1.0, 3.1; RFC 7636), as RFC
9700 wants it.

What the browser brings back proves nothing but that it was there: state ties it to this browser, the code is exchanged
by this server alone, and the ID token's signature, issuer, audience, times and nonce are checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import jwt

from faxbot.errors import FaxbotError, PluginError, Unauthenticated
from faxbot.plugins.base import Health, HttpReply, IdentityPlugin, Journey, Person

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""With public keys only. What the token's own head says is taken only from among these, so that neither `none` nor a
public key in the place of a shared secret goes through (RFC 8725, 3.1)."""
CLOCKS_APART = 60
"""Seconds by which the provider's clock and ours may differ."""
KEPT_SECONDS = 3600.0
"""What the provider says of itself is asked for again after so long; its keys also when one is not among them."""
_ERROR = re.compile(r"[a-z_]{1,40}")
_AGAIN = "The identity provider did not confirm this sign-in: begin again."


class OidcIdentity(IdentityPlugin):
    """One OpenID provider, by its issuer."""

    def health(self) -> Health:
        """Whether the provider is there, is the one that is meant, and has keys. What it said before proves nothing,
        so it is asked anew."""
        try:
            about = json.loads(self._described())
            self._fetched(self.config.get("keysUrl") or _endpoint(about, "jwks_uri"))
        except FaxbotError as error:
            return Health(False, error.detail)
        return Health(True, "The OpenID provider is there.")

    def begin(self, return_url: str) -> Journey:
        """The provider's page, asked with PKCE, state and nonce."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        wish = {
            "response_type": "code",
            "client_id": self.config["clientId"],
            "redirect_uri": return_url,
            "scope": self.config["scopes"],
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        page = _endpoint(self._about(), "authorization_endpoint")
        memory = {"state": state, "nonce": nonce, "verifier": verifier, "return": return_url}
        return Journey(f"{page}{'&' if '?' in page else '?'}{urlencode(wish)}", json.dumps(memory))

    def finish(self, answer: Mapping[str, str], memory: str) -> Person:
        """Who the provider says has come back; raises Unauthenticated, PluginError where faxbot is set up wrongly
        there, and what Http raises."""
        ours = json.loads(memory)
        if not hmac.compare_digest(answer.get("state", "").encode(), ours["state"].encode()):
            raise Unauthenticated(_AGAIN)
        self._check_sender(answer)
        if "error" in answer or not answer.get("code"):
            word = answer.get("error", "")
            said = f" It says: {word}." if _ERROR.fullmatch(word) else ""
            raise Unauthenticated(_AGAIN + said)
        token = self._exchange(answer["code"], ours)
        return self._person(self._claims(token, ours["nonce"]))

    def _check_sender(self, answer: Mapping[str, str]) -> None:
        """The answer must be this provider's, where it says whose it is (RFC 9207)."""
        says_so = self._about().get("authorization_response_iss_parameter_supported") is True
        if answer.get("iss", None if says_so else self.config["issuer"]) != self.config["issuer"]:
            raise Unauthenticated(_AGAIN)

    # What the provider says -------------------------------------------------------------------------

    def _about(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, 4; raises PluginError for one that is not who is meant, which is not kept."""
        return dict(json.loads(self._kept("about", self.config["issuer"], self._described)))

    def _described(self) -> str:
        issuer = str(self.config["issuer"])
        text = self._fetched(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        about = json.loads(text)
        if about.get("issuer") != issuer:
            raise PluginError("OIDC_ISSUER is not what the provider calls itself.")
        _endpoint(about, "authorization_endpoint")
        return text

    def _kept(
        self, what: str, address: str, make: Callable[[], str], stale: str | None = None
    ) -> str:
        """What was said at this address lately; at another one it is another value, since settings change meanwhile."""
        name = f"{what}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"
        return self.context.cache.get(name, lambda: (make(), KEPT_SECONDS), stale=stale)

    def _fetched(self, address: str) -> str:
        about = _object(self.context.http.request("GET", address))
        if about is None:
            raise PluginError("The OpenID provider does not say how it is set up: see OIDC_ISSUER.")
        return json.dumps(about)

    def _keys(self, stale: str | None = None) -> str:
        """The provider's public keys (RFC 7517), as JSON."""
        address = self.config.get("keysUrl") or _endpoint(self._about(), "jwks_uri")
        return self._kept("keys", address, lambda: self._fetched(address), stale)

    # The code and the token -------------------------------------------------------------------------

    def _exchange(self, code: str, ours: Mapping[str, str]) -> str:
        """The ID token for this code; raises Unauthenticated for a code that is not good."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": ours["return"],
            "code_verifier": ours["verifier"],
        }
        auth = self._credentials(form)
        address = self.config.get("tokenUrl") or _endpoint(self._about(), "token_endpoint")
        reply = self.context.http.request("POST", address, data=form, auth=auth)
        said = _object(reply)
        if said is None:
            if reply.status == 400 and b"invalid_grant" in reply.body:
                raise Unauthenticated(_AGAIN)
            raise PluginError(
                f"The OpenID provider answers with {reply.status}: see OIDC_CLIENT_ID and OIDC_CLIENT_SECRET."
            )
        token = said.get("id_token")
        if not isinstance(token, str):
            raise PluginError("The OpenID provider gives no ID token: is openid among OIDC_SCOPES?")
        return token

    def _credentials(self, form: dict[str, str]) -> tuple[str, str] | None:
        """How faxbot proves itself: Basic, unless the provider takes a form only (Core 1.0, 9; RFC 6749, 2.3.1)."""
        client_id, secret = str(self.config["clientId"]), self.config.get("clientSecret")
        ways = self._about().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if secret and "client_secret_basic" in ways:
            return quote_plus(client_id), quote_plus(str(secret))
        form["client_id"] = client_id
        if secret:
            form["client_secret"] = str(secret)
        return None

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """What the ID token says, once it is proven (Core 1.0, 3.1.3.7)."""
        client_id = self.config["clientId"]
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in ALGORITHMS:
                raise Unauthenticated(_AGAIN)
            claims = jwt.decode(
                token,
                self._key(head),
                algorithms=[head["alg"]],
                audience=client_id,
                issuer=self.config["issuer"],
                leeway=CLOCKS_APART,
                options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
            )
        except (jwt.InvalidTokenError, jwt.PyJWKError):
            raise Unauthenticated(_AGAIN) from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else client_id) != client_id:
            raise Unauthenticated(_AGAIN)
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise Unauthenticated(_AGAIN)
        return dict(claims)

    def _key(self, head: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that the token names; the provider is asked again for one that is not known. Raises PyJWKError."""
        known = self._keys()
        found = _named(known, head.get("kid")) or _named(self._keys(stale=known), head.get("kid"))
        if found is None:
            raise Unauthenticated(_AGAIN)
        return jwt.PyJWK(found, algorithm=head["alg"])

    def _person(self, claims: Mapping[str, Any]) -> Person:
        subject, name = claims["sub"], claims.get(self.config["nameClaim"])
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise Unauthenticated(_AGAIN)
        groups: Any = claims
        for step in str(self.config["groupsClaim"]).split("."):
            groups = groups.get(step) if isinstance(groups, Mapping) else None
        return Person(
            issuer=self.config["issuer"],
            subject=subject,
            name=name if isinstance(name, str) else "",
            groups=tuple(
                group
                for group in (groups if isinstance(groups, list) else [groups])
                if isinstance(group, str)
            ),
        )


def _endpoint(about: Mapping[str, Any], name: str) -> str:
    address = about.get(name)
    if not isinstance(address, str) or not address.startswith(("https://", "http://")):
        raise PluginError(f"The OpenID provider names no {name}.")
    return address


def _named(keys: str, key_id: object) -> dict[str, Any] | None:
    """The key of this id; without one, the only one there is."""
    found = json.loads(keys).get("keys")
    usable = [
        key
        for key in (found if isinstance(found, list) else [])
        if isinstance(key, dict) and key.get("use") != "enc"
    ]
    if key_id is None:
        return usable[0] if len(usable) == 1 else None
    return next((key for key in usable if key.get("kid") == key_id), None)


def _object(reply: HttpReply) -> dict[str, Any] | None:
    """The JSON object of a good answer."""
    if reply.status != 200:
        return None
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
